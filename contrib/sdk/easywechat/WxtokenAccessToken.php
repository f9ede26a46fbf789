<?php
// EasyWeChat 6 with tokens from `wxtoken serve`: $app->setAccessToken(new WxtokenAccessToken(URL, KEY)). Needs no AppSecret.
// With WxtokenHttpClient a token that WeChat rejects heals within the call.

declare(strict_types=1);

use EasyWeChat\Kernel\Contracts\AccessToken;

// Not a RefreshableAccessToken: after 42001 EasyWeChat would call refresh() and still send the old token.
final class WxtokenAccessToken implements AccessToken
{
    private string $token = '';

    private int $until = 0;

    public function __construct(
        private string $url, // http://127.0.0.1:7200/token, followed by /ACCOUNT if there are several
        private string $key, // the key that `wxtoken key` printed
    ) {}

    public function getToken(): string
    {
        // Once per request under PHP-FPM, and once a minute in Swoole or Octane, as WeChat advises.
        if (time() >= $this->until) {
            $this->ask();
        }

        return $this->token;
    }

    /** @return array<string,string> */
    public function toQuery(): array
    {
        return ['access_token' => $this->getToken()];
    }

    /** Tells a token that came from here from another one, such as a user's. */
    public function owns(string $token): bool
    {
        return $token === $this->token;
    }

    /**
     * Reports that WeChat rejected this token (40001, 40014, 42001). getToken() then returns the one to use.
     * WxtokenHttpClient calls it.
     */
    public function rejected(string $token): void
    {
        $this->ask(json_encode(['rejected' => $token], JSON_THROW_ON_ERROR));
    }

    private function ask(?string $body = null): void
    {
        $answer = file_get_contents($this->url, false, stream_context_create(['http' => [
            'method' => $body === null ? 'GET' : 'POST',
            'header' => ["Authorization: Bearer {$this->key}", 'Content-Type: application/json'],
            'content' => $body ?? '',
            'timeout' => 10,
            'ignore_errors' => true, // The body of wxtoken's errors says what to do.
        ]]));
        $handed = json_decode((string) $answer, true);
        if (! is_string($handed['access_token'] ?? null)) {
            throw new RuntimeException('wxtoken: '.($handed['message'] ?? 'no answer'));
        }
        $this->token = $handed['access_token'];
        $this->until = time() + min(60, (int) $handed['expires_in']);
    }
}
