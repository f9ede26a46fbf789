'use strict';
// co-wechat-api with the token that wxtoken published on this host: read anew for each call, never kept, never asked for.

const { readFile } = require('node:fs/promises');
const API = require('co-wechat-api');

const {
  WXTOKEN_FILE = '/var/lib/wxtoken/default.json',
  WXTOKEN_APPID,
  WECHAT_API = 'https://api.weixin.qq.com',
} = process.env;

// Opened by its name each time: it is replaced whole, and never written in place.
async function getToken() {
  const { access_token, created_at, expires_in } = JSON.parse(await readFile(WXTOKEN_FILE, 'utf8'));
  return { accessToken: access_token, expireTime: Date.parse(created_at) + expires_in * 1000 };
}

// The last argument says that the token comes from elsewhere: the SDK then neither asks for one nor retries. A rejected
// token is an error here (40001, as is one that has expired), and `wxtoken fetch --rejected` its cure.
const api = new API(WXTOKEN_APPID, '', getToken, async () => {}, true);
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
