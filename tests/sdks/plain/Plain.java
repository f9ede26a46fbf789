import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Makes API calls with Java's HttpClient, as SDKs do: at WeChat's own address, with a token that it asks for once. It is no
 * SDK.
 *
 * <p>For each line {@code call} on stdin it makes an API call, and prints {@code ok}, or {@code error} and the errcode.
 */
public class Plain {
  private static final String API = "https://api.weixin.qq.com/cgi-bin/";
  private static final HttpClient CLIENT = HttpClient.newHttpClient();

  private static String get(String url) throws Exception {
    HttpRequest request = HttpRequest.newBuilder(URI.create(API + url)).build();
    return CLIENT.send(request, BodyHandlers.ofString()).body();
  }

  private static String field(String json, String pattern) {
    Matcher matcher = Pattern.compile(pattern).matcher(json);
    return matcher.find() ? matcher.group(1) : null;
  }

  public static void main(String[] args) throws Exception {
    String token = null;
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    while (lines.readLine() != null) {
      try {
        String answer = "";
        if (token == null) {
          String query = "&appid=" + System.getenv("WXTOKEN_APPID") + "&secret=" + System.getenv("WXTOKEN_KEY");
          answer = get("token?grant_type=client_credential" + query);
          token = field(answer, "\"access_token\":\"([^\"]+)\"");
        }
        if (token != null) {
          answer = get("getcallbackip?access_token=" + token);
        }
        boolean isWell = answer.contains("\"ip_list\":[\"");
        System.out.println(isWell ? "ok" : "error " + field(answer, "\"errcode\":(-?\\d+)"));
      } catch (Exception e) {
        System.out.println("error " + e.getClass().getSimpleName());
      }
    }
  }
}
