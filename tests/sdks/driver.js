'use strict';
// Runs a Node.js SDK unchanged but for its host setting, which names a small reverse proxy in this process: requests for
// tokens go to wxtoken and all others to WeChat's stand-in. Without WXTOKEN_URL nothing is set, and all go where the hosts
// file leads.
//
// For each line `call` on stdin it makes an API call, and prints `ok`, or `error` and the errcode. After `later SECONDS` the
// SDK's clock is as much later. For `crowd` fifty clients, each with an SDK of its own, make a call at once; it prints what
// comes of the calls, each result once.

const http = require('node:http');
const { once } = require('node:events');
const { createInterface } = require('node:readline');
const { promisify } = require('node:util');

const { WXTOKEN_URL, WECHAT_API, WXTOKEN_APPID, WXTOKEN_KEY } = process.env;
const TOKEN_PATHS = ['/cgi-bin/token', '/cgi-bin/stable_token', '/cgi-bin/gettoken'];

let later = 0;
const RealDate = Date;
globalThis.Date = class extends RealDate {
  constructor(...given) {
    super(...(given.length === 0 ? [Date.now()] : given));
  }
  static now() {
    return RealDate.now() + later;
  }
};

const proxy = http.createServer((request, response) => {
  const base = TOKEN_PATHS.includes(request.url.split('?')[0]) ? WXTOKEN_URL : WECHAT_API;
  const { method, headers } = request;
  const onward = http.request(base + request.url, { method, headers: { ...headers, host: new URL(base).host } });
  onward.on('response', (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  onward.on('error', () => response.destroy());
  request.pipe(onward);
});

const SDKS = {
  'co-wechat-api': (url) => {
    const API = require('co-wechat-api');
    const api = new API(WXTOKEN_APPID, WXTOKEN_KEY);
    if (url) api.prefix = `${url}/cgi-bin/`;
    return () => api.getIp();
  },
  'wechat-api': (url) => {
    const API = require('wechat-api');
    const api = new API(WXTOKEN_APPID, WXTOKEN_KEY);
    if (url) api.endpoint = url;
    return promisify((callback) => api.getIp(callback));
  },
  'wechat-enterprise-api': (url) => {
    const API = require('wechat-enterprise-api');
    const api = new API(WXTOKEN_APPID, WXTOKEN_KEY, '1');
    if (url) api.prefix = `${url}/cgi-bin/`;
    // The SDK neither parses this answer nor looks for an errcode in it.
    return async () => {
      const answer = JSON.parse(await promisify((callback) => api.getCallbackIP(callback))());
      if (!answer.ip_list?.length) {
        throw Object.assign(new Error(answer.errmsg), { code: answer.errcode });
      }
      return answer;
    };
  },
};

(async () => {
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  const make = () => SDKS[process.argv[2]](WXTOKEN_URL && `http://127.0.0.1:${proxy.address().port}`);
  const result = async (call) => {
    try {
      return (await call()).ip_list.length > 0 ? 'ok' : 'nothing';
    } catch (err) {
      return `error ${err.code ?? err.name}`;
    }
  };
  // On a busy machine fifty handshakes may take longer than either side waits. That is no answer.
  const answer = async (call) => {
    let found;
    for (let n = 0; n < 5; n += 1) {
      found = await result(call);
      if (!/^error [A-Za-z]+$/.test(found)) break;
    }
    return found;
  };
  const call = make();
  let crowd = [];
  for await (const line of createInterface({ input: process.stdin })) {
    const [word, argument] = line.split(' ');
    if (word === 'later') {
      later += argument * 1000;
    } else if (word === 'crowd') {
      if (crowd.length === 0) crowd = Array.from({ length: 50 }, make);
      const results = new Set(await Promise.all(crowd.map(answer)));
      console.log([...results].sort().join(', '));
    } else {
      console.log(await result(call));
    }
  }
  process.exit();
})();
