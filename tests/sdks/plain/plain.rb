# Makes API calls with Ruby's net/http, as SDKs do: at WeChat's own address, with a token that it asks for once. It is no SDK.
#
# For each line `call` on stdin it makes an API call, and prints `ok`, or `error` and the errcode.

require 'json'
require 'net/http'

def ask(path, query)
  uri = URI::HTTPS.build(host: 'api.weixin.qq.com', path: "/cgi-bin/#{path}", query: URI.encode_www_form(query))
  # Without a proxy, whatever the environment names.
  Net::HTTP.start(uri.host, uri.port, nil, use_ssl: true) { |http| JSON.parse(http.get(uri.request_uri).body) }
end

token = nil
$stdout.sync = true
while $stdin.gets
  answer = {}
  if token.nil?
    answer = ask('token', grant_type: 'client_credential', appid: ENV['WXTOKEN_APPID'], secret: ENV['WXTOKEN_KEY'])
    token = answer['access_token']
  end
  answer = ask('getcallbackip', access_token: token) if token
  puts answer.key?('ip_list') ? 'ok' : "error #{answer['errcode']}"
end
