'use strict';
// co-wechat-api with tokens from `wxtoken serve`: redirects the SDK's own token request. Needs no AppSecret.

const API = require('co-wechat-api');

const {
  WXTOKEN_URL = 'http://127.0.0.1:7200',
  WXTOKEN_APPID,
  WXTOKEN_KEY, // the key that `wxtoken key` printed
  WECHAT_API = 'https://api.weixin.qq.com',
} = process.env;

class WxtokenAPI extends API {
  // The SDK calls this for the first token, in the last ten seconds of one, and when WeChat rejects one, from each API
  // call in progress. Calls at the same time share one request.
  getAccessToken() {
    this.asking ??= this.askWxtoken().finally(() => {
      this.asking = undefined;
    });
    return this.asking;
  }

  async askWxtoken() {
    const query = new URLSearchParams({
      grant_type: 'client_credential',
      appid: this.appid,
      secret: this.appsecret,
    });
    const { access_token, expires_in } = await this.request(`${WXTOKEN_URL}/cgi-bin/token?${query}`);
    const token = new API.AccessToken(access_token, Date.now() + (expires_in - 10) * 1000);
    await this.saveToken(token);
    return token;
  }
}

// In memory is fine, although the SDK warns against it: wxtoken gives all processes the same token.
let held;
const api = new WxtokenAPI(
  WXTOKEN_APPID,
  WXTOKEN_KEY,
  async () => held,
  async (token) => {
    held = token;
  },
);
api.prefix = `${WECHAT_API}/cgi-bin/`;

module.exports = api;

if (require.main === module) {
  api.getIp().then(
    (answer) => console.log(JSON.stringify(answer)),
    (err) => {
      console.error(`${err.code ?? ''} ${err.message}`);
      process.exitCode = 1;
    },
  );
}
