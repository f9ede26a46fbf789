# Completion of wxtoken for bash 4.4 or later. Load it with: source <(wxtoken completions bash)
# shellcheck shell=bash

_wxtoken() {
  mapfile -t COMPREPLY < <("$1" completions bash -- "${COMP_WORDS[@]:0:COMP_CWORD+1}" 2>/dev/null)
  if [[ ${COMPREPLY[0]-} == :path ]]; then
    COMPREPLY=()
    compopt -o default -o filenames
  fi
}

complete -F _wxtoken wxtoken
