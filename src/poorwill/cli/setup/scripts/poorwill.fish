# fish completion for poorwill; made by: poorwill completion fish
function __poorwill_words
    set -l line (commandline -opc) (commandline -ct)
    for offered in ($line[1] completion words -- $line[2..] 2>/dev/null)
        if test "$offered" = ":files"
            __fish_complete_path (commandline -ct)
        else
            echo $offered
        end
    end
end
complete -c poorwill -f -a '(__poorwill_words)'
