//! The story of a company: two official accounts and a WeCom app in one config, tickets, a hook, the central server, and a
//! mirror on a host that holds no AppSecret.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::stage::{STEP_TIMEOUT, Server, Stage, counted, expect, http};
use super::voice::{aside, prompt, say, shortened};
use crate::error::Exit;

/// The accounts' names at WeChat, and what opens them at the stand-in and nowhere else.
const SHOP: (&str, &str) = ("wx0123456789abcdef", "00000000000000000000000000005409");
const MINI: (&str, &str) = ("wxfedcba9876543210", "00000000000000000000000000003141");
const CRM: (&str, &str) = ("ww0123456789abcdef", "0000000000000000000000000000c0de");

/// The story. Every line of it is what really happened; a step that goes otherwise ends it.
pub(super) fn tell(stage: &Stage, keep: bool) -> Result<()> {
    let mut mock = stage.wxtoken(&["mock"])?;
    // Not as arguments, which everybody sees: as one would with real ones.
    let known = [SHOP, MINI, CRM].map(|(appid, secret)| format!("{appid}:{secret}"));
    mock.env("WXTOKEN_ACCOUNT", known.join(","));
    let wechat = stage.start(mock)?.address;

    say(
        "wxtoken demo: two official accounts, a WeCom app, their tickets, and a host without a secret.",
    )?;
    say("WeChat is a stand-in on this machine here; wxtoken is the real one. \
         微信由本机模拟，其余都是真的。")?;
    fetch(stage, wechat)?;
    chapter(
        "The central server: tokens and tickets for other hosts, for SDKs also in WeChat's own shapes.",
        "中控服务器：向其他主机提供 token 和 ticket，SDK 可直接使用与微信相同的接口。",
    )?;
    let central = serve(stage, "central.toml", "central.log")?;
    let mirror = hand_out(stage, central)?;
    heal(stage, wechat, central, mirror)?;
    if keep {
        let [central, mirror] = [central, mirror].map(|server| server.address);
        return say(format_args!(
            "\nGoing on until Ctrl-C: the central server at http://{central}, the mirror at http://{mirror}, the stand-in \
             at http://{wechat}"
        ));
    }

    chapter(
        "The central host dies. The mirror hands out what it has, while that lives.",
        "中控宕机，镜像在 token 有效期内照常提供。",
    )?;
    prompt("kill -9 %central")?;
    stage.kill(central)?;
    curl(mirror.address, "/token/shop")?;
    say(
        "\nThat is all. With accounts of your own: see README.md, Several accounts. 正式使用请看 README.zh-CN.md",
    )
}

/// One config for all; one account's trouble stays its own.
fn fetch(stage: &Stage, wechat: SocketAddr) -> Result<()> {
    let config = format!(
        r#"dir = "central"

[account.shop]
appid = "{}"
secret_file = "shop.secret"
base_url = "http://{wechat}"
tickets = ["jsapi", "wx_card"]
on_change = ["echo", "shop: here the app would be reloaded"]

[account.mini]
appid = "{}"
secret_file = "mini.secret"
base_url = "http://{wechat}"
api = "classic"

[account.crm]
appid = "{}"
secret_file = "crm.secret"
base_url = "http://{wechat}"
api = "work"
tickets = ["jsapi", "agent_config"]
"#,
        SHOP.0, MINI.0, CRM.0
    );
    put_and_show(stage, "central.toml", &config)?;
    stage.put("shop.secret", SHOP.1)?;
    stage.put("crm.secret", CRM.1)?;
    // A mix-up.
    stage.put("mini.secret", SHOP.1)?;

    chapter(
        "One run for all. The AppSecret of mini is a wrong one, which is its own trouble.",
        "一次运行处理全部账号；mini 的 AppSecret 填错了，只影响它自己。",
    )?;
    run(stage, &["fetch", "-c", "central.toml"], Exit::Refused)?;
    run(stage, &["check", "-c", "central.toml", "mini"], Exit::Refused)?;

    chapter(
        "Mended. Nobody is asked for what is not due.",
        "改正后再运行，未到期的不会重复获取。",
    )?;
    stage.put("mini.secret", MINI.1)?;
    run(stage, &["fetch", "-c", "central.toml"], Exit::Done)?;
    run(stage, &["status", "-c", "central.toml"], Exit::Done)?;
    let [tokens, tickets] = ["mints", "tickets"].map(|what| counted(wechat, what));
    let (tokens, tickets) = (tokens?, tickets?);
    ensure!((tokens, tickets) == (3, 4), "WeChat gave {tokens} tokens and {tickets} tickets");
    aside(format_args!("WeChat gave {tokens} tokens and {tickets} tickets in all"))
}

/// The central server, and a mirror of it.
fn hand_out(stage: &Stage, central: Server) -> Result<Server> {
    let address = central.address;
    let token = curl(address, "/token/shop")?;
    curl(address, "/ticket/shop/wx_card")?;
    curl(address, &format!("/cgi-bin/gettoken?corpid={}&corpsecret=any", CRM.0))?;

    chapter(
        "Another host: a mirror. It takes all from the central server, and never sees an AppSecret.",
        "另一台主机做镜像：一切取自中控，不接触 AppSecret。",
    )?;
    let config = format!(
        "dir = \"mirror\"\n\n[account.shop]\nfrom = \"http://{address}\"\ntickets = [\"jsapi\"]\n"
    );
    put_and_show(stage, "mirror.toml", &config)?;
    let mirror = serve(stage, "mirror.toml", "mirror.log")?;
    let mirrored = curl(mirror.address, "/token/shop")?;
    curl(mirror.address, "/ticket/shop/jsapi")?;
    ensure!(mirrored["access_token"] == token["access_token"], "the mirror has another token");
    let life = |answer: &Value| answer["expires_in"].as_u64();
    ensure!(life(&mirrored) <= life(&token), "the mirror promises more than the central server");
    Ok(mirror)
}

/// A token that died before its time is replaced once, for everybody.
fn heal(stage: &Stage, wechat: SocketAddr, central: Server, mirror: Server) -> Result<()> {
    chapter(
        "Another program had other tokens made, so ours are dead. A client of the mirror says so.",
        "别的程序获取了 token，原 token 失效；镜像的客户端报告后，自动更换一次。",
    )?;
    let dead = token(mirror.address, "/token/shop")?;
    let minted = counted(wechat, "mints")?;
    http(wechat, Ipv4Addr::LOCALHOST, "POST", "/mock/kill", "")?;
    let address = mirror.address;
    let body = serde_json::json!({ "rejected": dead }).to_string();
    prompt(format_args!(
        "curl -d '{{\"rejected\":\"{}…\"}}' http://{address}/token/shop",
        dead.get(..10).unwrap_or(&dead)
    ))?;
    let (status, answer) = http(address, Ipv4Addr::LOCALHOST, "POST", "/token/shop", &body)?;
    ensure!(status == 200, "a rejected token got {status}: {answer}");
    aside(shortened(&answer))?;
    let healed = token(central.address, "/token/shop")?;
    ensure!(healed != dead && answer.contains(&healed), "mirror and central server disagree");
    curl(central.address, "/token/shop")?;
    let minted = counted(wechat, "mints")? - minted;
    ensure!(minted == 1, "WeChat made {minted} tokens for one that was rejected");
    aside("WeChat made one token for it")?;

    prompt("cat central.log                        # and what was done there")?;
    let log = stage.dir.join("central.log");
    let log = eventually(|| Ok(fs::read_to_string(&log)?), |log| log.contains("reloaded"))?;
    log.lines().try_for_each(aside)
}

/// What is going on, in both languages.
fn chapter(english: &str, chinese: &str) -> Result<()> {
    say(format_args!("\n# {english}\n# {chinese}"))
}

fn put_and_show(stage: &Stage, name: &str, text: &str) -> Result<()> {
    stage.put(name, text)?;
    prompt(format_args!("cat {name}"))?;
    text.lines().filter(|line| !line.is_empty()).try_for_each(aside)
}

/// Runs `wxtoken WORDS…`, and shows all that it says.
fn run(stage: &Stage, words: &[&str], exit: Exit) -> Result<()> {
    prompt(format_args!("wxtoken {}", words.join(" ")))?;
    let output = stage.run(stage.wxtoken(words)?)?;
    String::from_utf8_lossy(&output.stderr).lines().try_for_each(aside)?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout.lines().try_for_each(aside)?;
    expect(&output, exit as i32).map(|_| ())
}

/// Starts a server that refreshes, on a port of its own; what it says goes to a file.
fn serve(stage: &Stage, config: &str, log: &str) -> Result<Server> {
    let words = ["serve", "--refresh", "-c", config, "--listen", "127.0.0.1:0"];
    prompt(format_args!("wxtoken {} 2>{log} &", words.join(" ")))?;
    let mut command: Command = stage.wxtoken(&words)?;
    command.stderr(File::create(stage.dir.join(log)).context("cannot write a log")?);
    let server = stage.start(command)?;
    aside(format_args!("listening on http://{}", server.address))?;
    Ok(server)
}

/// What is answered at `path`, as soon as there is something to hand out.
fn curl(address: SocketAddr, path: &str) -> Result<Value> {
    prompt(format_args!("curl 'http://{address}{path}'"))?;
    let get = || http(address, Ipv4Addr::LOCALHOST, "GET", path, "");
    let (status, body) = eventually(get, |(status, _)| *status != 503)?;
    aside(shortened(&body))?;
    if status != 200 {
        bail!("{path} got {status} instead of 200");
    }
    serde_json::from_str(&body).context("not JSON")
}

fn token(address: SocketAddr, path: &str) -> Result<String> {
    let answer = http(address, Ipv4Addr::LOCALHOST, "GET", path, "")?.1;
    let answer: Value = serde_json::from_str(&answer)?;
    Ok(answer["access_token"].as_str().context("no token")?.to_owned())
}

/// What `look` finds when it is as it should be; what it finds at last, if it never is.
fn eventually<T>(mut look: impl FnMut() -> Result<T>, is_so: impl Fn(&T) -> bool) -> Result<T> {
    let deadline = Instant::now() + STEP_TIMEOUT;
    loop {
        let found = look()?;
        if is_so(&found) || Instant::now() >= deadline {
            return Ok(found);
        }
        sleep(Duration::from_millis(10));
    }
}
