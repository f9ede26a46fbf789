<?php
// Heals a dead token within an API call of EasyWeChat 6, with tokens from `wxtoken serve`:
//
//     $source = new WxtokenAccessToken('http://127.0.0.1:7200/token', $key);
//     $app->setAccessToken($source);
//     $app->setHttpClient(new WxtokenHttpClient($app->getHttpClient(), $source));

declare(strict_types=1);

use Symfony\Contracts\HttpClient\HttpClientInterface;
use Symfony\Contracts\HttpClient\ResponseInterface;
use Symfony\Contracts\HttpClient\ResponseStreamInterface;

final class WxtokenHttpClient implements HttpClientInterface
{
    // The size of the largest answer that can be an error of WeChat's.
    private const LARGEST_ERROR = 4096;

    public function __construct(
        private HttpClientInterface $client,
        private WxtokenAccessToken $source,
    ) {}

    /** @param array<string,mixed> $options */
    public function request(string $method, string $url, array $options = []): ResponseInterface
    {
        $response = $this->client->request($method, $url, $options);
        $token = $options['query']['access_token'] ?? null;
        if (! is_string($token) || ! $this->source->owns($token) || ! $this->rejectsToken($response)) {
            return $response;
        }
        try {
            $this->source->rejected($token);
            $current = $this->source->getToken();
        } catch (RuntimeException) {
            return $response; // WeChat's answer says what is wrong.
        }
        // A body that is read while it is sent cannot be sent again. The next call takes the current token.
        $body = $options['body'] ?? '';
        if ($current === $token || ! (is_string($body) || is_array($body))) {
            return $response;
        }
        $options['query']['access_token'] = $current;

        return $this->client->request($method, $url, $options);
    }

    /** @param ResponseInterface|iterable<ResponseInterface> $responses */
    public function stream($responses, ?float $timeout = null): ResponseStreamInterface
    {
        return $this->client->stream($responses, $timeout);
    }

    /** @param array<string,mixed> $options */
    public function withOptions(array $options): static
    {
        return new self($this->client->withOptions($options), $this->source);
    }

    private function rejectsToken(ResponseInterface $response): bool
    {
        $length = $response->getHeaders(false)['content-length'][0] ?? 0;
        if ((int) $length > self::LARGEST_ERROR) {
            return false;
        }
        $answer = json_decode($response->getContent(false), true);

        return in_array($answer['errcode'] ?? 0, [40001, 40014, 42001], true);
    }
}
