#compdef carrel
# zsh completion for carrel: source <(carrel completion zsh), after compinit,
# or as a file named _carrel in a directory of $fpath.
# Only the carrel of the PATH is asked: no key may run what lies in a directory.
_carrel() {
  local candidate meaning
  local -a described open
  while IFS=$'\t' read -r candidate meaning; do
    if [[ $candidate == :files ]]; then
      _files
    elif [[ $candidate == *= ]]; then
      open+=("${candidate//:/\\:}:$meaning")
    else
      described+=("${candidate//:/\\:}:$meaning")
    fi
  done < <(command carrel complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
  (( ${#described} == 0 )) || _describe carrel described
  (( ${#open} == 0 )) || _describe carrel open -S ''
}
if [[ ${zsh_eval_context[-1]} == loadautofunc ]]; then
  _carrel "$@"
else
  compdef _carrel carrel
fi
