//! `GET /`: the status page, over HTTP and in a browser. The unit tests of the page cover the text for each failure.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::*;

const TOKEN: &str = "T0KEN_that_no_page_shows";

/// `echo -n T0KEN_that_no_page_shows | sha256sum`
const FINGERPRINT: &str = "90530205";

fn published() -> Sandbox {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish(TOKEN, 7200, 1000);
    sandbox
}

#[test]
fn the_page_is_html_that_loads_nothing_and_is_not_cached() {
    let sandbox = published();
    let server = sandbox.serve(&[]);
    let response = server.get("/");
    assert_eq!(response.status, 200, "{response:?}");
    let policy = response.header("content-security-policy").unwrap();
    for part in ["default-src 'none'", "frame-ancestors 'none'", "style-src 'unsafe-inline'"] {
        assert!(policy.contains(part), "{policy}");
    }
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("content-length", &response.body.len().to_string()),
    ] {
        assert_eq!(response.header(name), Some(value), "{response:?}");
    }
    let mut caller = server.caller();
    caller.send("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = caller.answer_to_head();
    assert_eq!((head.status, head.header("content-type")), (200, response.header("content-type")));
    assert_eq!(caller.get("/healthz").status, 200, "no body follows the head");
}

#[test]
fn the_page_shows_the_current_state_of_the_account_and_never_the_token() {
    let sandbox = published();
    let server = sandbox.serve(&[]);
    for (age, texts) in [
        (Some(1000), ["<title>✓", "All is well", "一切正常", FINGERPRINT]),
        (Some(7100), ["<title>!", "ends soon", "即将到期", FINGERPRINT]),
        (Some(9000), ["<title>✗", "expired", "已过期", FINGERPRINT]),
        (None, ["<title>✗", "no token", "没有 token", APPID]),
    ] {
        match age {
            Some(age) => sandbox.publish(TOKEN, 7200, age),
            None => fs::remove_file(sandbox.document_path()).unwrap(),
        }
        let page = server.get("/").body;
        for text in [texts.as_slice(), &["default", APPID, env!("CARGO_PKG_VERSION")]].concat() {
            assert!(page.contains(text), "{text:?} is not in {page}");
        }
        assert!(!page.contains(TOKEN), "{page}");
    }
}

#[test]
fn the_page_shows_a_refusal_with_its_remedy_in_both_languages_and_no_secret() {
    let wechat = WeChat::start();
    wechat.fault("errcode:40164");
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let failure = "Last failure";
    eventually("the refusal is on the page", || server.get("/").body.contains(failure));
    let page = server.get("/").body;
    for text in ["(40164)", "API IP allowlist", "白名单", "Next try", "in ", "后</span>"] {
        assert!(page.contains(text), "{text:?} is not in {page}");
    }
    // WeChat's text is shown without secrets and control characters.
    for fault in ["echo", "escape"] {
        wechat.fault(fault);
        server.signal("HUP");
        eventually("the next refusal is on the page", || server.get("/").body.contains("(40013)"));
        for path in ["/", "/metrics"] {
            let body = server.get(path).body;
            assert!(!body.contains(SECRET) && !body.contains('\x1b'), "{fault} {path}: {body}");
        }
        wechat.fault("errcode:40164");
        server.signal("HUP");
        eventually("the first refusal is back", || server.get("/").body.contains("(40164)"));
    }
    wechat.fault("none");
    server.signal("HUP");
    eventually("all is well", || server.get("/").body.contains("All is well"));
    assert!(!server.get("/").body.contains(failure), "a past failure is not shown");
}

#[test]
fn a_rejected_token_is_not_shown_as_live() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("classic");
    let server = sandbox.serve_refreshing(&[]);
    eventually("there is a token", || server.get("/").body.contains("All is well"));
    let report_rejected = || {
        let body = serde_json::json!({"rejected": sandbox.token()}).to_string();
        let length = body.len();
        server.send(&format!(
            "POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ))
    };
    wechat.kill_tokens();
    assert_eq!(report_rejected().status, 200);
    assert!(server.get("/").body.contains("All is well"), "it was replaced");
    // Rejected again, too early for another replacement.
    wechat.kill_tokens();
    assert_eq!(report_rejected().status, 503);
    let page = server.get("/").body;
    for text in ["<title>✗", "No live token", "dead", "已失效", "too early"] {
        assert!(page.contains(text), "{text:?} is not in {page}");
    }
    assert!(server.get("/metrics").body.contains("\nwxtoken_token_live{account=\"default\"} 0\n"));
}

#[test]
fn the_page_is_in_the_language_that_the_browser_prefers() {
    let sandbox = published();
    let server = sandbox.serve(&[]);
    let page = |language: &str| {
        let head = format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nAccept-Language: {language}\r\nConnection: close\r\n\r\n"
        );
        server.send(&head).body
    };
    let (chinese, english) = (page("zh-CN,zh;q=0.9,en;q=0.8"), page("en-US,en;q=0.9,zh;q=0.8"));
    assert!(chinese.contains("一切正常") && !chinese.contains("All is well"), "{chinese}");
    assert!(english.contains("All is well") && !english.contains("一切正常"), "{english}");
    let unknown = server.get("/").body;
    assert!(unknown.contains("All is well") && unknown.contains("一切正常"), "{unknown}");
}

/// A browser that loads one page and exits.
struct Browser {
    /// Its profile.
    dir: tempfile::TempDir,
}

impl Browser {
    fn new() -> Browser {
        Browser { dir: tempfile::tempdir().unwrap() }
    }

    /// Opens a page, and returns what the browser prints.
    fn open(&self, url: &str, args: &[&str]) -> String {
        let output = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            // The server is local, so no proxy. /dev/shm can be too small in a container.
            .args(["--no-proxy-server", "--hide-scrollbars", "--disable-dev-shm-usage"])
            .arg(format!("--user-data-dir={}", self.dir.path().join("profile").display()))
            .args(args)
            .arg(url)
            .output()
            .expect("chromium starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {stderr}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Returns the DOM of the page.
    fn elements(&self, server: &Server) -> String {
        self.open(&format!("http://{}/", server.address()), &["--dump-dom"])
    }
}

#[needs(chromium)]
#[test]
fn a_browser_finds_the_state_in_the_title_the_headline_and_the_meter() {
    let browser = Browser::new();
    let sandbox = published();
    let server = sandbox.serve(&[]);
    for (age, parts) in [
        (
            1000,
            ["<title>✓ All is well · wxtoken</title>", "<header class=\"well\">", "All is well"],
        ),
        (
            9000,
            ["<title>✗ No live token · wxtoken</title>", "<header class=\"ill\">", "No live token"],
        ),
    ] {
        sandbox.publish(TOKEN, 7200, age);
        let elements = browser.elements(&server);
        for part in [&parts[..], &["role=\"meter\"", FINGERPRINT, "--well:"]].concat() {
            assert!(elements.contains(part), "{part:?} is not in {elements}");
        }
    }
}

/// A page as wide as a small phone's scrolls up and down only.
#[needs(chromium)]
#[test]
fn a_browser_of_320_pixels_shows_the_page_without_scrolling_sideways() {
    let browser = Browser::new();
    let wechat = WeChat::start();
    wechat.fault("errcode:40164");
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    eventually("the refusal is on the page", || server.get("/").body.contains("Last failure"));
    // A window has 500 pixels at least, so the page is in a frame, and a script beside it measures it.
    let page = server.get("/").body.replace('&', "&amp;").replace('"', "&quot;");
    // The longest name of an account, in the widest letter.
    let page = page.replace("<h2>default", &format!("<h2>{}", "m".repeat(32)));
    let framed = format!(
        "<iframe id=\"page\" width=\"320\" height=\"2000\" style=\"border: 0\" srcdoc=\"{page}\"></iframe>\
         <script>page.onload = () => {{ document.title = page.contentDocument.documentElement.scrollWidth + ' of ' + \
         page.contentWindow.innerWidth }}</script>"
    );
    let frame = browser.dir.path().join("frame.html");
    fs::write(&frame, framed).unwrap();
    let elements = browser.open(&format!("file://{}", frame.display()), &["--dump-dom"]);
    assert!(elements.contains("<title>320 of 320</title>"), "{elements}");
}

/// Returns the accessibility tree of a page, a line for each node: its role and its name. The browser is asked over its
/// debugging protocol, whose messages end with NUL, through two pipes that are files.
fn accessibility_tree(browser: &Browser, url: &str, language: &str) -> String {
    let [to_browser, from_browser] =
        ["to", "from"].map(|name| browser.dir.path().join(format!("{name}-{language}")));
    Run::new({
        let mut mkfifo = Command::new("mkfifo");
        mkfifo.args([&to_browser, &from_browser]);
        mkfifo
    })
    .exits(0);
    let mut chromium = Command::new("sh");
    chromium.args([
        "-c",
        r#"exec chromium "$@" 3<"$REQUESTS" 4>"$ANSWERS" >/dev/null 2>&1"#,
        "sh",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--no-proxy-server",
        "--disable-dev-shm-usage",
        "--remote-debugging-pipe",
    ]);
    chromium.arg(format!("--accept-lang={language}"));
    chromium.arg(format!(
        "--user-data-dir={}",
        browser.dir.path().join(format!("profile-{language}")).display()
    ));
    chromium.env("REQUESTS", &to_browser).env("ANSWERS", &from_browser);
    let mut chromium = chromium.spawn().unwrap();
    let mut requests = fs::OpenOptions::new().write(true).open(&to_browser).unwrap();
    let mut answers = BufReader::new(fs::File::open(&from_browser).unwrap());
    let mut id = 0;
    let mut call = |session: &str, method: &str, parameters: Value| {
        id += 1;
        let mut request = json!({"id": id, "method": method, "params": parameters});
        if !session.is_empty() {
            request["sessionId"] = session.into();
        }
        requests.write_all(format!("{request}\0").as_bytes()).unwrap();
        loop {
            let mut answer = Vec::new();
            answers.read_until(0, &mut answer).unwrap();
            answer.pop();
            let answer: Value = serde_json::from_slice(&answer).expect("an answer of the browser");
            if answer["id"] == id {
                return answer["result"].clone();
            }
        }
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let target = call("", "Target.createTarget", json!({"url": url}));
    let attach = json!({"targetId": target["targetId"], "flatten": true});
    let session = text(&call("", "Target.attachToTarget", attach)["sessionId"]);
    call(&session, "Accessibility.enable", json!({}));
    let mut tree = String::new();
    // The page may still be loading.
    eventually("the page is there", || {
        let answer = call(&session, "Accessibility.getFullAXTree", json!({}));
        let nodes = answer["nodes"].as_array().unwrap().clone();
        let lines = nodes.iter().map(|node| {
            format!("{} {}\n", text(&node["role"]["value"]), text(&node["name"]["value"]))
        });
        tree = lines.collect();
        tree.contains("contentinfo")
    });
    let language = json!({"expression": "document.documentElement.lang"});
    let language = call(&session, "Runtime.evaluate", language);
    tree += &format!("lang {}\n", text(&language["result"]["value"]));
    call("", "Browser.close", json!({}));
    chromium.wait().unwrap();
    tree
}

#[needs(chromium)]
#[test]
fn a_screen_reader_finds_the_headline_the_landmarks_the_terms_and_the_language() {
    let browser = Browser::new();
    let sandbox = published();
    let server = sandbox.serve(&[]);
    let url = format!("http://{}/", server.address());
    for (language, lines) in [
        (
            "en",
            [
                "heading All is well",
                "heading default live",
                "meter life left",
                "RootWebArea ✓ All is well · wxtoken",
            ],
        ),
        (
            "zh-CN",
            [
                "heading 一切正常",
                "heading default 有效",
                "meter 剩余有效期",
                "RootWebArea ✓ 一切正常 · wxtoken",
            ],
        ),
    ] {
        let tree = accessibility_tree(&browser, &url, language);
        let landmarks = ["banner ", "main ", "complementary ", "contentinfo "];
        let (terms, tag) =
            (["term wxtoken check", "definition ", "time "], format!("lang {language}"));
        for line in [&lines[..], &landmarks, &terms, &[tag.as_str()]].concat() {
            assert!(tree.lines().any(|it| it == line), "{line:?} is not in:\n{tree}");
        }
        // The sign beside the headline says the same as the headline.
        assert!(!tree.lines().any(|it| it == "StaticText ✓"), "{tree}");
    }
}

/// Writes a document with markup as its AppID. A server that has no AppID configured serves it.
fn hostile_document(path: &Path) -> PathBuf {
    let appid =
        "</p><script>document.title='0wned'</script><img src=x onerror=document.title='0wned'>";
    let document = serde_json::json!({
        "appid": appid, "access_token": TOKEN, "expires_in": 7200, "created_at": time_ago(60),
    });
    write_with_mode(path, &document.to_string(), 0o600);
    path.to_owned()
}

#[needs(chromium)]
#[test]
fn a_browser_does_not_run_markup_in_a_document() {
    let browser = Browser::new();
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    let document = hostile_document(&sandbox.path("hostile.json"));
    let mut command = wxtoken();
    command.args(["serve", "--listen", "127.0.0.1:0", "--file"]).arg(document);
    let server = Server::start(command, 1);
    let elements = browser.elements(&server);
    assert!(elements.contains("&lt;script&gt;document.title="), "{elements}");
    for element in ["<script", "<img", "<title>0wned"] {
        assert!(!elements.contains(element), "{element:?} is in {elements}");
    }
}
