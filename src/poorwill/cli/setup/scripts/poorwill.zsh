#compdef poorwill
# zsh completion for poorwill; made by: poorwill completion zsh
_poorwill() {
    local word text files=
    local -a known
    while IFS=$'\t' read -r word text; do
        if [[ $word == :files ]]; then files=yes; else known+=("${word//:/\\:}:$text"); fi
    done < <("${words[1]}" completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)
    (( $#known )) && _describe -t words poorwill known
    [[ -n $files ]] && _files
    return 0
}
if [[ $funcstack[1] == _poorwill ]]; then _poorwill "$@"; else compdef _poorwill poorwill; fi
