import java.io.IOException;
import java.net.URLEncoder;

import me.chanjar.weixin.mp.api.impl.WxMpServiceImpl;
import org.apache.http.client.methods.CloseableHttpResponse;
import org.apache.http.client.methods.HttpGet;
import org.apache.http.impl.client.BasicResponseHandler;

/**
 * WxJava's official accounts (weixin-java-mp) with tokens from `wxtoken serve`: redirects the SDK's own token request.
 * In the configuration the secret is the key that `wxtoken key` printed. WxJava keeps its lock, its cache and its retry.
 * Mini programs need no class: use config.setAccessTokenUrl(...), see README.md.
 */
public class WxtokenMpService extends WxMpServiceImpl {
  private final String url;

  /** @param url where wxtoken listens: http://127.0.0.1:7200 */
  public WxtokenMpService(String url) {
    this.url = url;
  }

  @Override
  protected String doGetAccessTokenRequest() throws IOException {
    HttpGet get = new HttpGet(url + "/cgi-bin/token?grant_type=client_credential"
      + "&appid=" + URLEncoder.encode(getWxMpConfigStorage().getAppId(), "UTF-8")
      + "&secret=" + URLEncoder.encode(getWxMpConfigStorage().getSecret(), "UTF-8"));
    try (CloseableHttpResponse response = getRequestHttpClient().execute(get)) {
      return new BasicResponseHandler().handleResponse(response);
    }
  }

  // WxJava calls this with useStableAccessToken(true). Without it the key would be sent to WeChat.
  @Override
  protected String doGetStableAccessTokenRequest(boolean forceRefresh) throws IOException {
    return doGetAccessTokenRequest();
  }
}
