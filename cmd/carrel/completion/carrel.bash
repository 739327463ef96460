# bash completion for carrel: source <(carrel completion bash)
# Only the carrel of the PATH is asked: no key may run what lies in a directory.
_carrel() {
  local line=${COMP_LINE:0:COMP_POINT} rest word candidate i
  local -a words=()
  # bash has made three words of --flag=value, and more of a URL: what no space parts
  # is one again.
  for ((i = 0; i <= COMP_CWORD; i++)); do
    rest=${line#"${line%%[![:space:]]*}"}
    word=${COMP_WORDS[i]}
    ((i < COMP_CWORD)) || word=$rest # up to the cursor
    if ((i > 0)) && [[ $rest == "$line" ]]; then
      words[-1]+=$word
    else
      words+=("$word")
    fi
    line=${rest#"$word"}
  done
  # The shell puts a candidate in the place of the last of its own words alone.
  [[ $word != [=:]* ]] || word=${word:1}
  local kept=${words[-1]%"$word"}
  COMPREPLY=()
  while IFS=$'\t' read -r candidate _; do
    if [[ $candidate == :files ]]; then
      compopt -o default
    else
      COMPREPLY+=("${candidate#"$kept"}")
    fi
  done < <(command carrel complete -- "${words[@]:1}" 2>/dev/null)
  [[ ${#COMPREPLY[@]} != 1 || ${COMPREPLY[0]} != *= ]] || compopt -o nospace
}
complete -F _carrel carrel
