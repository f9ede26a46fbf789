// Senparc.Weixin with tokens from `wxtoken serve`. Every API of the SDK takes a token in place of an AppID:
//
//     var token = await Wxtoken.GetAsync();
//     var result = await CommonApi.GetCallBackIpAsync(token);
//     if ((int)result.errcode is 40001 or 40014 or 42001) { token = await Wxtoken.RejectedAsync(token); /* once more */ }
//
// Nothing is registered in AccessTokenContainer. There is no AppSecret, and with a token the SDK neither caches nor
// retries. With Config.ThrownWhenJsonResultFaild the errcode is in an ErrorJsonResultException instead.

#nullable enable

using System;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text.Json.Serialization;
using System.Threading;
using System.Threading.Tasks;

public static class Wxtoken
{
    private sealed record Handed(
        [property: JsonPropertyName("access_token")] string Token,
        [property: JsonPropertyName("expires_in")] int ExpiresIn);

    // Followed by /ACCOUNT if there are several. The key is the one that `wxtoken key` printed.
    private static readonly string Url =
        (Environment.GetEnvironmentVariable("WXTOKEN_URL") ?? "http://127.0.0.1:7200") + "/token";
    private static readonly string? Key = Environment.GetEnvironmentVariable("WXTOKEN_KEY");

    private static readonly HttpClient Client = new() { Timeout = TimeSpan.FromSeconds(10) };
    private static readonly SemaphoreSlim One = new(1);
    private static string? token;
    private static DateTime until;

    /// Returns the token to use now. Asks wxtoken once a minute, as WeChat advises.
    public static Task<string> GetAsync() => AskAsync(null);

    /// Reports that WeChat rejected this token, and returns the one to use from now on.
    public static Task<string> RejectedAsync(string rejected) => AskAsync(rejected);

    private static async Task<string> AskAsync(string? rejected)
    {
        await One.WaitAsync();
        try
        {
            if (token != null && token != rejected && DateTime.UtcNow < until) return token;
            using var request = new HttpRequestMessage(rejected == null ? HttpMethod.Get : HttpMethod.Post, Url);
            request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", Key);
            if (rejected != null) request.Content = JsonContent.Create(new { rejected });
            using var response = await Client.SendAsync(request);
            response.EnsureSuccessStatusCode();
            var handed = await response.Content.ReadFromJsonAsync<Handed>();
            until = DateTime.UtcNow.AddSeconds(Math.Min(60, handed!.ExpiresIn));
            return token = handed.Token;
        }
        finally
        {
            One.Release();
        }
    }
}
