//! What passes between a client and WeChat, and what does not.

use serde_json::json;

use super::upstream::{Reply, Upstream};
use crate::support::*;

/// Returns the response to `request`, which a client sends with the account's token at `TOKEN`, and what WeChat received.
#[track_caller]
fn pass(answer: &str, request: &str) -> (Response, Vec<super::upstream::Call>) {
    let wechat = WeChat::start();
    let answer = answer.to_owned();
    let upstream = Upstream::new(&wechat, move |_| Reply::Bytes(answer.clone().into_bytes()));
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let server = sandbox.serve_refreshing(&["--gateway"]);
    server.get("/token");
    let response = server.send(&request.replace("TOKEN", &sandbox.token()));
    (response, upstream.calls())
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_call_without_a_token_gets_the_accounts() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&["--gateway"]);
    let answer = server.get("/cgi-bin/get_api_domain_ip");
    assert_eq!(answer.status, 200);
    assert!(answer.json()["ip_list"][0].is_string(), "{answer:?}");
    // Without a gateway there is no such path.
    let server = sandbox.serve_refreshing(&[]);
    assert_eq!(server.get("/cgi-bin/get_api_domain_ip").status, 404);
}

/// The mock alone is enough to try the gateway out.
#[test]
fn messages_uploads_and_downloads_pass_and_heal_with_the_mock() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&["--gateway"]);
    for kill in [false, true] {
        if kill {
            wechat.kill_tokens();
        }
        assert_eq!(server.post("/cgi-bin/message/custom/send", "{}").json()["errcode"], 0);
        let upload = server.post("/cgi-bin/media/upload", &"x".repeat(2 * 1024 * 1024));
        assert!(upload.json()["media_id"].is_string(), "{upload:?}");
        let download = server.get("/cgi-bin/media/get");
        assert_eq!(download.header("content-type"), Some("image/jpeg"));
    }
    // A permanent refusal of these calls alone.
    wechat.fault("api/errcode:40014");
    let mints = wechat.mints();
    assert_eq!(server.get("/cgi-bin/media/get").json()["errcode"], 40014);
    assert_eq!(wechat.mints(), mints);
}

#[test]
fn method_path_query_headers_and_body_arrive_as_they_came() {
    let body = r#"{"touser":"o1","text":{"content":"你好"}}"#;
    let request = format!(
        "POST /cgi-bin/message/custom/send?a=%7e&access_token=TOKEN&b=+%E4 HTTP/1.1\r\nHost: localhost:7200\r\n\
         Content-Type: application/json\r\nWechatmp-Signature: s+/=\r\nX-Twice: 1\r\nX-Twice: 2\r\nExpect: 100-continue\r\n\
         Accept-Encoding: gzip\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nAuthorization: Bearer wxk_secret\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (response, calls) = pass(OK, &request);
    assert!(response.head.starts_with("HTTP/1.1 100 Continue"), "{response:?}");
    let [call] = &calls[..] else { panic!("{calls:?}") };
    assert!(call.head.starts_with("POST /cgi-bin/message/custom/send?a=%7e&access_token="));
    assert!(call.target().ends_with("&b=+%E4"), "{}", call.target());
    assert_eq!(String::from_utf8(call.body.clone()).unwrap(), body);
    for (name, expected) in [
        ("content-type", Some("application/json")),
        ("wechatmp-signature", Some("s+/=")),
        ("accept-encoding", Some("identity")),
        ("expect", None),
        ("connection", None),
        ("x-hop", None),
        ("authorization", None),
        ("transfer-encoding", None),
    ] {
        assert_eq!(call.header(name), expected, "{name}");
    }
    assert_eq!(call.head.matches("x-twice: ").count(), 2);
    assert!(call.header("host").unwrap().starts_with("127.0.0.1:"), "{}", call.head);
}

/// WeChat answers 412 to a chunked body.
#[test]
fn a_body_arrives_with_its_length_however_it_is_framed() {
    let chunked =
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n";
    for (method, framing, body) in [
        ("POST", "Content-Length: 7\r\n\r\nabcdefg", Some("abcdefg")),
        ("POST", chunked, Some("abcdefg")),
        ("PUT", chunked, Some("abcdefg")),
        ("GET", chunked, Some("abcdefg")),
        ("GET", "Content-Length: 7\r\n\r\nabcdefg", Some("abcdefg")),
        ("POST", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Some("")),
        ("POST", "Content-Length: 0\r\n\r\n", Some("")),
        ("POST", "\r\n", Some("")),
        ("DELETE", "\r\n", Some("")),
        ("GET", "\r\n", None),
    ] {
        let request = format!(
            "{method} /cgi-bin/x?access_token=TOKEN HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{framing}"
        );
        let (response, calls) = pass(OK, &request);
        assert_eq!(response.body, "ok", "{method} {framing:?}");
        let [call] = &calls[..] else { panic!("{calls:?}") };
        assert!(call.head.starts_with(&format!("{method} /cgi-bin/x?access_token=")));
        let length = body.map(|body| body.len().to_string());
        assert_eq!(call.header("content-length"), length.as_deref(), "{method} {framing:?}");
        assert_eq!(call.header("transfer-encoding"), None);
        assert_eq!(call.body, body.unwrap_or("").as_bytes(), "{method} {framing:?}");
    }
}

/// Clients that stream a body, and nginx without `proxy_request_buffering`, have no length to send.
#[test]
fn a_chunked_request_keeps_its_connection_and_others_follow_on_it() {
    let wechat = WeChat::start();
    let upstream =
        Upstream::new(&wechat, |call| Reply::Json(format!("{{\"length\":{}}}", call.body.len())));
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let server = sandbox.serve_refreshing(&["--gateway"]);
    let mut caller = server.caller();
    let post = |path: &str, chunks: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
        )
    };
    let call = |chunks| post("/cgi-bin/x", chunks);
    caller
        .send(call("2\r\n{}\r\n0\r\nTrailer: x\r\n\r\n") + &call("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"));
    for length in [2, 3] {
        let answer = caller.answer();
        assert_eq!((answer.status, answer.header("connection")), (200, None));
        assert_eq!(answer.body, format!("{{\"length\":{length}}}"));
    }
    // One of which a part is missing still ends it.
    let report = post("/token", "12\r\n{\"rejected\":\"T0\"} \r\n0\r\n\r\n");
    caller.send(&report);
    let answer = caller.answer();
    assert_eq!((answer.status, answer.header("connection")), (200, None), "{answer:?}");
    caller.send(report.replace("POST", "PATCH").replace("0\r\n\r\n", ""));
    let answer = caller.answer();
    assert_eq!((answer.status, answer.header("connection")), (405, Some("close")));
    assert!(caller.is_closed());
}

#[test]
fn an_answer_arrives_as_it_came() {
    for (answer, expected, body) in [
        (OK, "200 OK", "ok"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200 OK", ""),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end", "200 OK", "to the end"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n",
            "200 OK",
            "abcde",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{\"errcode\":45009}",
            "200 OK",
            "{\"errcode\":45009}",
        ),
        (
            "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n",
            "412 Precondition Failed",
            "",
        ),
        ("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nno!", "502 Bad Gateway", "no!"),
        ("HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", "302 Found", ""),
        ("HTTP/1.1 304 Not Modified\r\nETag: \"e\"\r\n\r\n", "304 Not Modified", ""),
        ("HTTP/1.1 204 No Content\r\n\r\n", "204 No Content", ""),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "200 OK",
            "ok",
        ),
    ] {
        // The connection of the answer may end with it.
        let request = "GET /cgi-bin/x?access_token=TOKEN HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let answer_and_end = match answer.contains("Connection: close") {
            true => {
                let wechat = WeChat::start();
                let bytes = answer.as_bytes().to_vec();
                let upstream = Upstream::new(&wechat, move |_| Reply::Closing(bytes.clone()));
                let sandbox = Sandbox::with_base_url(&upstream.url());
                let server = sandbox.serve_refreshing(&["--gateway"]);
                server.get("/token");
                server.send(&request.replace("TOKEN", &sandbox.token()))
            }
            false => pass(answer, request).0,
        };
        let Response { head, body: got, .. } = &answer_and_end;
        assert!(head.starts_with(&format!("HTTP/1.1 {expected}")), "{answer:?}: {head}");
        let got = match answer_and_end.header("transfer-encoding") {
            Some("chunked") => dechunked(got),
            _ => got.clone(),
        };
        assert_eq!(got, body, "{answer:?}");
        for (name, value) in [("ETag", "\"e\""), ("Location", "/x")] {
            if answer.contains(name) {
                assert_eq!(answer_and_end.header(name), Some(value), "{answer:?}");
            }
        }
    }
}

fn dechunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        whole += &rest[..size];
        body = &rest[(size + 2).min(rest.len())..];
    }
    whole
}

#[test]
fn head_keeps_the_length_and_has_no_body() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nContent-Type: image/png\r\n\r\n";
    let request = "HEAD /cgi-bin/x?access_token=TOKEN HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let (response, calls) = pass(answer, request);
    assert_eq!((response.status, response.header("content-length")), (200, Some("1234")));
    assert_eq!(response.body, "");
    assert!(calls[0].head.starts_with("HEAD "));
}

#[test]
fn one_connection_to_wechat_carries_many_calls_of_many_clients() {
    let wechat = WeChat::start();
    let upstream = Upstream::honest(&wechat);
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let server = sandbox.serve_refreshing(&["--gateway"]);
    let mut kept = server.caller();
    for _ in 0..10 {
        assert_eq!(kept.get("/cgi-bin/x").json()["errcode"], 0);
        assert_eq!(server.post("/cgi-bin/y", "{}").json()["errcode"], 0);
    }
    let mut connections: Vec<_> = upstream.calls().iter().map(|call| call.connection).collect();
    connections.dedup();
    assert_eq!(upstream.calls().len(), 20);
    assert_eq!(connections.len(), 1, "{connections:?}");
}

/// WeChat never hears a host that the client names, and the client none but that.
#[test]
fn a_host_that_the_client_names_is_not_connected_to() {
    let (_kept, nowhere) = refusing_address();
    for request in [
        format!(
            "GET http://{nowhere}/cgi-bin/x?access_token=TOKEN HTTP/1.1\r\nHost: {nowhere}\r\nConnection: close\r\n\r\n"
        ),
        format!(
            "GET /cgi-bin/x?access_token=TOKEN HTTP/1.1\r\nHost: {nowhere}\r\nConnection: close\r\n\r\n"
        ),
    ] {
        let (response, calls) = pass(OK, &request);
        assert_eq!(response.body, "ok", "{request}");
        assert_ne!(calls[0].header("host"), Some(&*nowhere.to_string()));
        assert!(calls[0].target().starts_with("/cgi-bin/x"), "{}", calls[0].head);
    }
}

#[test]
fn websocket_connect_and_trace_are_refused_and_an_offer_of_http2_is_ignored() {
    let to = "/cgi-bin/x?access_token=TOKEN HTTP/1.1\r\nHost: localhost\r\n";
    for request in [
        format!("GET {to}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
        format!("TRACE {to}\r\n"),
        "CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n".to_owned(),
    ] {
        let (response, calls) = pass(OK, &request);
        assert!(response.status >= 400, "{request}: {response:?}");
        assert_eq!(calls.len(), 0, "{request}");
    }
    let offer = format!(
        "GET {to}Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    );
    let (response, calls) = pass(OK, &offer);
    assert_eq!(response.body, "ok");
    assert_eq!((calls[0].header("upgrade"), calls[0].header("http2-settings")), (None, None));
}

#[test]
fn a_chunked_body_of_more_than_24_mib_is_refused() {
    let wechat = WeChat::start();
    let upstream = Upstream::honest(&wechat);
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let server = sandbox.serve_refreshing(&["--gateway"]);
    let send = |mib: usize| {
        let mut caller = server.caller();
        caller.send(
            "POST /cgi-bin/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        let chunk = ["100000\r\n", &"x".repeat(1024 * 1024), "\r\n"].concat();
        for _ in 0..mib {
            if caller.try_send(&chunk).is_err() {
                break;
            }
        }
        let _ = caller.try_send("0\r\n\r\n");
        caller.answer()
    };
    assert_eq!(send(24).json(), json!({"errcode": 0, "errmsg": "ok"}));
    let refused = send(25);
    assert_eq!((refused.status, &refused.json()["errcode"]), (200, &json!(45002)), "{refused:?}");
    assert_eq!(upstream.calls().len(), 1);
    assert_eq!(upstream.calls()[0].length, 24 * 1024 * 1024);
}

#[test]
fn the_calls_of_each_account_are_counted_by_what_came_of_them() {
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |call| match call.path() {
        "/cgi-bin/quota" => Reply::Json(r#"{"errcode":45009,"errmsg":"x"}"#.to_owned()),
        "/cgi-bin/page" => Reply::Bytes(b"HTTP/1.1 502 x\r\nContent-Length: 0\r\n\r\n".to_vec()),
        "/cgi-bin/image" => Reply::Large(10_000),
        _ => Reply::Json("{}".to_owned()),
    });
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let server = sandbox.serve_refreshing(&["--gateway"]);
    for path in ["ok", "ok", "quota", "page", "image"] {
        server.get(&format!("/cgi-bin/{path}?secret=S3CR3T"));
    }
    let metrics = server.get("/metrics").body;
    for (result, errcode, count) in
        [("ok", 0, 2), ("refused", 45009, 1), ("http_error", 0, 1), ("streamed", 0, 1)]
    {
        let line = format!(
            "wxtoken_gateway_calls_total{{account=\"default\",result=\"{result}\",errcode=\"{errcode}\"}} {count}\n"
        );
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    assert!(metrics.contains("route=\"gateway\",status=\"200\"} 4"), "{metrics}");
    assert!(!metrics.contains("quota") && !metrics.contains("S3CR3T"));
}

#[test]
fn a_multipart_body_and_odd_headers_arrive_as_they_are() {
    let boundary = "----x'()+_,-./:=?";
    let body = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"media\"; filename=\"图.png\"\r\n\
         Content-Type: image/png\r\n\r\n\0\r\n--\r\n\r\n--{boundary}--\r\n"
    );
    let long = "v".repeat(4000);
    let many: String = (0..50).map(|n| format!("X-N{n}: {n}\r\n")).collect();
    let request = format!(
        "POST /cgi-bin/media/upload?access_token=TOKEN&type=image HTTP/1.1\r\nHost: localhost\r\n\
         Content-Type: multipart/form-data; boundary=\"{boundary}\"\r\nX-Empty:\r\nX-Utf8: 你好\r\nX-Tab: a\tb\r\n\
         x_odd!name: 1\r\nX-Long: {long}\r\n{many}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = "HTTP/1.1 200 All is well\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer:\r\nError-Msg: 你好\r\n\
                  x_odd!name: 2\r\nContent-Length: 2\r\n\r\nok";
    let (response, calls) = pass(answer, &request);
    let [call] = &calls[..] else { panic!("{response:?}") };
    assert_eq!(call.body, body.as_bytes());
    for (name, expected) in [
        ("content-type", format!("multipart/form-data; boundary=\"{boundary}\"").as_str()),
        ("x-empty", ""),
        ("x-utf8", "你好"),
        ("x-tab", "a\tb"),
        ("x_odd!name", "1"),
        ("x-long", &long),
        ("x-n49", "49"),
    ] {
        assert_eq!(call.header(name), Some(expected), "{name}");
    }
    assert_eq!(response.body, "ok");
    assert_eq!(response.head.matches("set-cookie: ").count(), 2, "{}", response.head);
    for (name, expected) in [("server", ""), ("error-msg", "你好"), ("x_odd!name", "2")] {
        assert_eq!(response.header(name), Some(expected), "{name}");
    }
}

/// WeChat is asked for none.
#[test]
fn a_compressed_answer_passes_as_it_is() {
    let compressed =
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00";
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |_| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            compressed.len()
        );
        Reply::Bytes([head.as_bytes(), compressed].concat())
    });
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let server = sandbox.serve_refreshing(&["--gateway"]);
    server.get("/token");
    let mut caller = server.caller();
    caller.send("GET /cgi-bin/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(caller.answer_to_head().header("content-encoding"), Some("gzip"));
    let mut body = Vec::new();
    caller.read_all(&mut body);
    assert_eq!(body, compressed);
}

/// hyper writes a head that fills its buffer before it asks for the body.
#[test]
fn a_head_of_any_length_that_is_taken_arrives_with_its_body() {
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |call| {
        let length = call.path().rsplit('/').next().unwrap().parse().unwrap();
        let long = "v".repeat(length);
        Reply::Bytes(
            format!("HTTP/1.1 200 OK\r\nX-Long: {long}\r\nContent-Length: 2\r\n\r\n{{}}").into(),
        )
    });
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let server = sandbox.serve_refreshing(&["--gateway"]);
    server.get("/token");
    let mut caller = server.caller();
    for length in [7_000, 8_100, 8_200, 9_000, 17_000, 60_000] {
        caller.send(format!("GET /cgi-bin/{length} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let answer = caller.answer();
        assert_eq!(answer.body, "{}", "{length}");
        assert_eq!(answer.header("x-long").map(str::len), Some(length));
    }
}
