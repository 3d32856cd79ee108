# SPDX-License-Identifier: MIT
# made by tools/completions

_linxctl_scopes() {
    local file
    for file in {/etc,/run,/usr/lib}/linxd/netns/*.toml; do
        [[ -e $file ]] && file=${file##*/} && printf '%s\n' "${file%.toml}"
    done
    for file in {/etc,/run,/usr/lib}/linxd/host.toml; do
        [[ -e $file ]] && echo host
    done
    for file in /run/linxd-state/*/; do
        [[ -d $file ]] && file=${file%/} && printf '%s\n' "${file##*/}"
    done
}

_linxctl() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command= n
    COMPREPLY=()
    for ((n = 1; n < COMP_CWORD; n++)); do
        [[ ${COMP_WORDS[n]} == -* ]] || { command=${COMP_WORDS[n]}; break; }
    done
    case $command:$before in
    list:--state-dir)
        compopt -o filenames; COMPREPLY=($(compgen -d -- "$word"))
        return
        ;;
    status:--state-dir)
        compopt -o filenames; COMPREPLY=($(compgen -d -- "$word"))
        return
        ;;
    topology:--file)
        compopt -o filenames; COMPREPLY=($(compgen -f -- "$word"))
        return
        ;;
    topology:--state-dir)
        compopt -o filenames; COMPREPLY=($(compgen -d -- "$word"))
        return
        ;;
    log:-n|log:--lines)
        :
        return
        ;;
    log:--since)
        :
        return
        ;;
    log:--until)
        :
        return
        ;;
    log:--directory)
        compopt -o filenames; COMPREPLY=($(compgen -d -- "$word"))
        return
        ;;
    check:--scope)
        COMPREPLY=($(compgen -W "$(_linxctl_scopes)" -- "$word"))
        return
        ;;
    diff:--file)
        compopt -o filenames; COMPREPLY=($(compgen -f -- "$word"))
        return
        ;;
    diff:--state-dir)
        compopt -o filenames; COMPREPLY=($(compgen -d -- "$word"))
        return
        ;;
    apply:--scope)
        COMPREPLY=($(compgen -W "$(_linxctl_scopes)" -- "$word"))
        return
        ;;
    apply:--state-dir)
        compopt -o filenames; COMPREPLY=($(compgen -d -- "$word"))
        return
        ;;
    pause:--for)
        :
        return
        ;;
    pause:--state-dir)
        compopt -o filenames; COMPREPLY=($(compgen -d -- "$word"))
        return
        ;;
    resume:--state-dir)
        compopt -o filenames; COMPREPLY=($(compgen -d -- "$word"))
        return
        ;;
    reload:--state-dir)
        compopt -o filenames; COMPREPLY=($(compgen -d -- "$word"))
        return
        ;;
    release:--netns)
        compopt -o filenames; COMPREPLY=($(compgen -f -- "$word"))
        return
        ;;
    release:--state-dir)
        compopt -o filenames; COMPREPLY=($(compgen -d -- "$word"))
        return
        ;;
    capture:--netns)
        COMPREPLY=($(compgen -W "$(_linxctl_scopes)" -- "$word"))
        return
        ;;
    esac
    case $command in
    '')
        COMPREPLY=($(compgen -W 'list status topology watch log check diff apply pause resume reload release capture -h --help --debug --version --no-pager' -- "$word"))
        ;;
    list)
        if [[ $word == -* ]]; then
            COMPREPLY=($(compgen -W '-h --help --json --state-dir' -- "$word"))
        fi
        ;;
    status)
        if [[ $word == -* ]]; then
            COMPREPLY=($(compgen -W '-h --help --json --state-dir' -- "$word"))
        else
            COMPREPLY=($(compgen -W "$(_linxctl_scopes)" -- "$word"))
        fi
        ;;
    topology)
        if [[ $word == -* ]]; then
            COMPREPLY=($(compgen -W '-h --help --json --dot --svg --file --state-dir' -- "$word"))
        else
            COMPREPLY=($(compgen -W "$(_linxctl_scopes)" -- "$word"))
        fi
        ;;
    watch)
        if [[ $word == -* ]]; then
            COMPREPLY=($(compgen -W '-h --help --json' -- "$word"))
        else
            COMPREPLY=($(compgen -W "$(_linxctl_scopes)" -- "$word"))
        fi
        ;;
    log)
        if [[ $word == -* ]]; then
            COMPREPLY=($(compgen -W '-h --help --full --all -f --follow -n --lines --since --until --directory --json' -- "$word"))
        else
            COMPREPLY=($(compgen -W "$(_linxctl_scopes)" -- "$word"))
        fi
        ;;
    check)
        if [[ $word == -* ]]; then
            COMPREPLY=($(compgen -W '-h --help --scope --json' -- "$word"))
        else
            compopt -o filenames; COMPREPLY=($(compgen -f -- "$word"; compgen -W "$(_linxctl_scopes)" -- "$word"))
        fi
        ;;
    diff)
        if [[ $word == -* ]]; then
            COMPREPLY=($(compgen -W '-h --help --file --json --state-dir' -- "$word"))
        else
            COMPREPLY=($(compgen -W "$(_linxctl_scopes)" -- "$word"))
        fi
        ;;
    apply)
        if [[ $word == -* ]]; then
            COMPREPLY=($(compgen -W '-h --help --scope --once --json --state-dir' -- "$word"))
        else
            compopt -o filenames; COMPREPLY=($(compgen -f -- "$word"))
        fi
        ;;
    pause)
        if [[ $word == -* ]]; then
            COMPREPLY=($(compgen -W '-h --help --for --json --state-dir' -- "$word"))
        else
            COMPREPLY=($(compgen -W "$(_linxctl_scopes)" -- "$word"))
        fi
        ;;
    resume)
        if [[ $word == -* ]]; then
            COMPREPLY=($(compgen -W '-h --help --json --state-dir' -- "$word"))
        else
            COMPREPLY=($(compgen -W "$(_linxctl_scopes)" -- "$word"))
        fi
        ;;
    reload)
        if [[ $word == -* ]]; then
            COMPREPLY=($(compgen -W '-h --help --json --state-dir' -- "$word"))
        else
            COMPREPLY=($(compgen -W "$(_linxctl_scopes)" -- "$word"))
        fi
        ;;
    release)
        if [[ $word == -* ]]; then
            COMPREPLY=($(compgen -W '-h --help --netns --json --state-dir' -- "$word"))
        else
            COMPREPLY=($(compgen -W "$(_linxctl_scopes)" -- "$word"))
        fi
        ;;
    capture)
        if [[ $word == -* ]]; then
            COMPREPLY=($(compgen -W '-h --help --netns --json' -- "$word"))
        fi
        ;;
    esac
}
complete -F _linxctl linxctl
