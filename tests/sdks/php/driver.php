<?php
// Makes API calls as EasyWeChat 6 does, with the recipe in contrib/sdk/easywechat and Debian's Symfony. EasyWeChat itself is
// not there: this has its interface, and adds the token to the query as its AccessTokenAwareClient does.
//
// For each line `call` on stdin it makes an API call, and prints `ok`, or `error` and the errcode or the reason. `foreign` is a
// call with a token that is not wxtoken's.

declare(strict_types=1);

namespace EasyWeChat\Kernel\Contracts {
    interface AccessToken
    {
        public function getToken(): string;

        /** @return array<string,string> */
        public function toQuery(): array;
    }
}

namespace {
    require '/usr/share/php/Symfony/Component/HttpClient/autoload.php';
    require $argv[1].'/WxtokenAccessToken.php';
    require $argv[1].'/WxtokenHttpClient.php';

    $source = new WxtokenAccessToken(getenv('WXTOKEN_URL').'/token', getenv('WXTOKEN_KEY'));
    $client = Symfony\Component\HttpClient\HttpClient::createForBaseUri(getenv('WECHAT_API'));
    $client = new WxtokenHttpClient($client, $source);
    while (($line = fgets(STDIN)) !== false) {
        try {
            $query = trim($line) === 'foreign' ? ['access_token' => 'foreign'] : $source->toQuery();
            $answer = $client->request('GET', '/cgi-bin/getcallbackip', ['query' => $query])->toArray();
            echo isset($answer['ip_list']) ? "ok\n" : "error {$answer['errcode']}\n";
        } catch (Throwable $err) {
            echo "error {$err->getMessage()}\n";
        }
    }
}
