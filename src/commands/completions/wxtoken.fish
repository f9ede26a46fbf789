# Completion of wxtoken for fish. Load it with: wxtoken completions fish | source

function __wxtoken_words
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    set -l found ($before[1] completions fish -- $before "$current" 2>/dev/null)
    if test "$found[1]" = :path
        __fish_complete_path "$current"
    else if set -q found[1]
        printf '%s\n' $found
    end
end

complete -c wxtoken -f -a '(__wxtoken_words)'
