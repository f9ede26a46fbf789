#!/bin/sh
# Makes one API call with a token from `wxtoken serve`, without an AppSecret. If WeChat rejects the token, reports it (which
# takes `serve --refresh`) and makes the call once more. The argument is the account's name, if the server has several and
# the key is not for one of them.
set -eu
: "${WXTOKEN_URL:=http://127.0.0.1:7200}" "${WECHAT_API:=https://api.weixin.qq.com}"
: "${WXTOKEN_KEY:?is what "wxtoken key" printed}"
route=/token${1:+/$1}

# curl reads secrets from stdin, because ps shows its arguments.
curl_from_stdin() { curl -sS --fail --max-time 10 -K -; }

# Prints the value of a field of flat JSON, if it is there.
field() { sed -n 's/.*"'"$1"'" *: *"\{0,1\}\([^",}]*\).*/\1/p'; }

# ask_wxtoken: prints the token's JSON. ask_wxtoken TOKEN: first reports that WeChat rejected TOKEN.
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
    # Names the token that was rejected: if it is replaced already, the answer is the new one.
    handed_out=$(ask_wxtoken "$token")
    answer=$(call_wechat "$(printf %s "$handed_out" | field access_token)")
    ;;
esac
printf '%s\n' "$answer"
case $(printf %s "$answer" | field errcode) in '' | 0) ;; *) exit 1 ;; esac
