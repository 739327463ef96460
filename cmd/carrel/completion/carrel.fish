# fish completion for carrel: carrel completion fish | source
# Only the carrel of the PATH is asked: no key may run what lies in a directory.
function __carrel_candidates
    set -l words (commandline -opc)
    for candidate in (command carrel complete -- $words[2..-1] (commandline -ct) 2>/dev/null)
        if test "$candidate" = :files
            __fish_complete_path (commandline -ct)
        else
            printf '%s\n' $candidate
        end
    end
end
complete -c carrel -f -a '(__carrel_candidates)'
