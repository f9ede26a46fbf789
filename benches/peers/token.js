// A token server as teams write one for Node.js: keeps what a file has, and looks at it once a second.
const fs = require("node:fs");
const http = require("node:http");

let current;
const load = () => {
  const it = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
  current = { token: it.access_token, endsAt: Date.parse(it.created_at) + it.expires_in * 1000 };
};
load();
setInterval(load, 1000);

const server = http.createServer((request, response) => {
  const left = Math.floor((current.endsAt - Date.now()) / 1000);
  const body = JSON.stringify({ access_token: current.token, expires_in: left });
  response.writeHead(200, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) });
  response.end(body);
});
server.listen(0, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${server.address().port}`));
