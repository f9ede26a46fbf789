#compdef wxtoken
# Completion of wxtoken for zsh. Save it as _wxtoken in a directory of $fpath, or load it after compinit with:
# source <(wxtoken completions zsh)

_wxtoken() {
  local -a found
  found=("${(@f)$("$words[1]" completions zsh -- "${(@)words[1,CURRENT]}" 2>/dev/null)}")
  if [[ $found[1] == :path ]]; then
    _files
  elif [[ -n $found[1] ]]; then
    _describe -t words wxtoken found
  fi
}

if [[ $funcstack[1] == _wxtoken ]]; then
  _wxtoken "$@"
else
  compdef _wxtoken wxtoken
fi
