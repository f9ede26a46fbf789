#!/bin/sh
# One API call with the token that `wxtoken serve` hands out, no AppSecret here. When WeChat rejects the token, that is
# said (it takes `serve --refresh`), and the call is made once more. Its argument is the account's name, where the server
# has several and the key is not for one of them.
set -eu
: "${WXTOKEN_URL:=http://127.0.0.1:7200}" "${WECHAT_API:=https://api.weixin.qq.com}"
: "${WXTOKEN_KEY:?is what "wxtoken key" printed}"
route=/token${1:+/$1}

# curl reads what is secret from stdin: its arguments are shown by ps.
curl_from_stdin() { curl -sS --fail --max-time 10 -K -; }

# The value of a field of flat JSON; nothing where it is missing.
field() { sed -n 's/.*"'"$1"'" *: *"\{0,1\}\([^",}]*\).*/\1/p'; }

# ask_wxtoken: the token's JSON. ask_wxtoken TOKEN: the same, after saying that WeChat rejected TOKEN.
ask_wxtoken() {
  {
    printf 'url = "%s%s"\nheader = "Authorization: Bearer %s"\n' "$WXTOKEN_URL" "$route" "$WXTOKEN_KEY"
    [ $# -eq 0 ] || printf 'header = "Content-Type: application/json"\ndata = "{\\"rejected\\":\\"%s\\"}"\n' "$1"
  } | curl_from_stdin
}

call_wechat() { printf 'url = "%s/cgi-bin/getcallbackip?access_token=%s"\n' "$WECHAT_API" "$1" | curl_from_stdin; }

handed_out=$(ask_wxtoken)
token=$(printf %s "$handed_out" | field access_token)
answer=$(call_wechat "$token")
case $(printf %s "$answer" | field errcode) in
  40001 | 40014 | 42001)
    # The very token that failed: if somebody else was quicker, the answer is the new one all the same.
    handed_out=$(ask_wxtoken "$token")
    answer=$(call_wechat "$(printf %s "$handed_out" | field access_token)")
    ;;
esac
printf '%s\n' "$answer"
case $(printf %s "$answer" | field errcode) in '' | 0) ;; *) exit 1 ;; esac
