#!/bin/sh
# Makes one API call with the token that wxtoken published on this host. If WeChat rejects the token, reports it and makes
# the call once more. Run it as the user of `wxtoken fetch`, with its settings in the environment
# (/etc/wxtoken/wxtoken.env). The argument is the account's name, if a config has several.
set -eu
: "${WECHAT_API:=https://api.weixin.qq.com}"

# curl reads the URL from stdin, because ps shows its arguments.
call_wechat() {
  printf 'url = "%s/cgi-bin/getcallbackip?access_token=%s"\n' "$WECHAT_API" "$1" | curl -sS --fail --max-time 10 -K -
}

# Prints the errcode in WeChat's answer, if there is one.
errcode() { sed -n 's/.*"errcode" *: *\(-\{0,1\}[0-9]*\).*/\1/p'; }

# Without a live token this fails with a line that says why.
token=$(wxtoken get -r "$@")
answer=$(call_wechat "$token")
case $(printf %s "$answer" | errcode) in
  40001 | 40014 | 42001)
    # Names the token that was rejected: if it is replaced already, nothing happens. From stdin, because of ps again.
    printf %s "$token" | wxtoken fetch --rejected - "$@"
    token=$(wxtoken get -r "$@")
    answer=$(call_wechat "$token")
    ;;
esac
printf '%s\n' "$answer"
case $(printf %s "$answer" | errcode) in '' | 0) ;; *) exit 1 ;; esac
