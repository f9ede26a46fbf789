'use strict';
// co-wechat-api with the token that wxtoken published on this host. Reads the file for each call, and keeps no token.

const { readFile } = require('node:fs/promises');
const API = require('co-wechat-api');

const {
  WXTOKEN_FILE = '/var/lib/wxtoken/default.json',
  WXTOKEN_APPID,
  WECHAT_API = 'https://api.weixin.qq.com',
} = process.env;

// Opens the file by its name each time, because wxtoken replaces it and never writes in place.
async function getToken() {
  const { access_token, created_at, expires_in } = JSON.parse(await readFile(WXTOKEN_FILE, 'utf8'));
  return { accessToken: access_token, expireTime: Date.parse(created_at) + expires_in * 1000 };
}

// The last argument tells the SDK neither to request tokens nor to retry. A rejected or expired token is an error (40001);
// `wxtoken fetch --rejected` has it replaced.
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
