#!/bin/sh
# One API call with the token that wxtoken published on this host. When WeChat rejects it, that is said, and the call
# is made once more: run as the user who fetches, with fetch's settings in the environment (/etc/wxtoken/wxtoken.env).
# Its argument is the account's name, where a config has several.
set -eu
: "${WECHAT_API:=https://api.weixin.qq.com}"

# curl reads the URL from stdin: its arguments are shown by ps.
call_wechat() {
  printf 'url = "%s/cgi-bin/getcallbackip?access_token=%s"\n' "$WECHAT_API" "$1" | curl -sS --fail --max-time 10 -K -
}

# The errcode in WeChat's answer; nothing where there is none.
errcode() { sed -n 's/.*"errcode" *: *\(-\{0,1\}[0-9]*\).*/\1/p'; }

# Ends here, with a line that says why, when there is no token that lives.
token=$(wxtoken get -r "$@")
answer=$(call_wechat "$token")
case $(printf %s "$answer" | errcode) in
  40001 | 40014 | 42001)
    # The very token that failed: if somebody else was quicker, nothing happens. From stdin, for ps again.
    printf %s "$token" | wxtoken fetch --rejected - "$@"
    token=$(wxtoken get -r "$@")
    answer=$(call_wechat "$token")
    ;;
esac
printf '%s\n' "$answer"
case $(printf %s "$answer" | errcode) in '' | 0) ;; *) exit 1 ;; esac
