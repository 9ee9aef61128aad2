# bash completion for poorwill; made by: poorwill completion bash
_poorwill() {
    local cur=${COMP_WORDS[COMP_CWORD]} word rest
    COMPREPLY=()
    while IFS=$'\t' read -r word rest; do
        if [[ $word == :files ]]; then
            mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "$cur")
        elif [[ $word != -* || $cur == -* ]]; then
            COMPREPLY+=("$word")
        fi
    done < <("${COMP_WORDS[0]}" completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    return 0
}
complete -o filenames -F _poorwill poorwill
