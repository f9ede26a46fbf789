//! The full demo: two official accounts and a WeCom app in one config, with tickets, a hook, the central server, and a mirror
//! that has no AppSecret.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::narration::{
    print_line, print_prompt, print_result, print_step, print_text, shortened, wait_for_reader,
};
use super::sandbox::{DemoServer, STEP_TIMEOUT, Sandbox, expect, http, mock_count};
use crate::error::Exit;
use crate::language::Language;

/// AppIDs, and the numbers that are the AppSecrets once they have 32 digits; valid for the stand-in only.
const SHOP: (&str, u32) = ("wx0123456789abcdef", 5409);
const MINI: (&str, u32) = ("wxfedcba9876543210", 3141);
const CRM: (&str, u32) = ("ww0123456789abcdef", 2718);

/// Runs the demo. Prints what really happens, and fails at a step that goes otherwise than expected. Every command that it
/// prints can be typed in an empty directory.
pub(super) fn run(sandbox: &Sandbox, keep: bool) -> Result<()> {
    print_text(
        "wxtoken demo: two official accounts, a WeCom app, their tickets, and a host without a secret.",
        "wxtoken 演示：两个公众号、一个企业微信应用、各自的 ticket，以及一台没有 AppSecret 的主机。",
    )?;
    print_text(
        "WeChat is a stand-in on this machine here; wxtoken is the real one.",
        "微信由本机模拟，其余都是真的。",
    )?;
    let wechat = start_stand_in(sandbox)?;
    fetch_all(sandbox, wechat)?;
    wait_for_reader()?;
    print_step(
        3,
        "The central server: tokens and tickets for other hosts, for SDKs also in WeChat's own shapes.",
        "中控服务器：向其他主机提供 token 和 ticket，SDK 可直接使用与微信相同的接口。",
    )?;
    let central = serve(sandbox, "central.toml", "central.log")?;
    let mirror = serve_tokens(sandbox, central)?;
    replace_rejected_token(sandbox, wechat, central, mirror)?;
    if keep {
        let [central, mirror] = [central, mirror].map(|server| server.address);
        print_line("")?;
        return print_text(
            &format!(
                "Going on until Ctrl-C: the central server at http://{central}, the mirror at http://{mirror}, the \
                 stand-in at http://{wechat}"
            ),
            &format!(
                "运行至 Ctrl-C：中控服务器 http://{central}，只读副本 http://{mirror}，模拟的微信 http://{wechat}"
            ),
        );
    }

    wait_for_reader()?;
    print_step(
        6,
        "The central host dies. The mirror hands out what it has, while that lives.",
        "中控宕机，只读副本在 token 有效期内照常提供。",
    )?;
    print_prompt("kill -9 %?central")?;
    sandbox.kill(central)?;
    get_and_print(mirror.address, "/token/shop")?;
    print_line("")?;
    print_text(
        "That is all. With accounts of your own: see README.md, Several accounts.",
        "演示结束。正式使用请看 README.zh-CN.md。",
    )
}

/// Starts the stand-in, with secrets that no argument shows: other users can see those.
fn start_stand_in(sandbox: &Sandbox) -> Result<SocketAddr> {
    let mut mock = sandbox.wxtoken(&["mock"])?;
    let accounts = [SHOP, MINI, CRM].map(|(appid, number)| format!("{appid}:{}", secret(number)));
    mock.env("WXTOKEN_ACCOUNT", accounts.join(","));
    let wechat = sandbox.start(mock)?.address;
    print_prompt("secret() { printf %032d $1; }")?;
    let [shop, mini, crm] =
        [SHOP, MINI, CRM].map(|(appid, number)| format!("{appid}:$(secret {number})"));
    print_prompt(format_args!("ACCOUNTS={shop},{mini}"))?;
    print_prompt(format_args!("ACCOUNTS=$ACCOUNTS,{crm}"))?;
    print_prompt(format_args!("WXTOKEN_ACCOUNT=$ACCOUNTS wxtoken mock --listen {wechat} &"))?;
    Ok(wechat)
}

/// The AppSecret that is this number.
fn secret(number: u32) -> String {
    format!("{number:032}")
}

/// Writes AppSecrets into files, and prints how.
fn write_secrets(sandbox: &Sandbox, secrets: &[(&str, u32)]) -> Result<()> {
    let mut command = String::from("umask 077");
    for (name, number) in secrets {
        sandbox.write_file(name, &secret(*number))?;
        command += &format!("; secret {number} >{name}");
    }
    print_prompt(format_args!("({command})"))
}

/// Fetches all accounts with one config. A wrong secret of one account does not affect the others.
fn fetch_all(sandbox: &Sandbox, wechat: SocketAddr) -> Result<()> {
    let reloads = match Language::of_process() {
        Language::Chinese => "shop：此处可让应用重新加载",
        Language::English | Language::Both => "shop: here the app would be reloaded",
    };
    let config = format!(
        r#"dir = "central"

[account.shop]
appid = "{}"
secret_file = "shop.secret"
base_url = "http://{wechat}"
tickets = ["jsapi", "wx_card"]
on_change = ["echo", "{reloads}"]

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
    write_secrets(sandbox, &[("shop.secret", SHOP.1), ("crm.secret", CRM.1)])?;
    // The wrong secret.
    write_secrets(sandbox, &[("mini.secret", SHOP.1)])?;
    write_and_print(sandbox, "central.toml", &config)?;

    wait_for_reader()?;
    print_step(
        1,
        "One run for all. The AppSecret of mini is a wrong one, which is its own trouble.",
        "一次运行处理全部账号；mini 的 AppSecret 填错了，只影响它自己。",
    )?;
    run_wxtoken(sandbox, &["fetch", "-c", "central.toml"], Exit::Refused)?;
    run_wxtoken(sandbox, &["check", "-q", "-c", "central.toml", "mini"], Exit::Refused)?;

    wait_for_reader()?;
    print_step(
        2,
        "With the right one. What is not due is not asked for again.",
        "改正后再运行：未到刷新时间的不会重复获取。",
    )?;
    write_secrets(sandbox, &[("mini.secret", MINI.1)])?;
    run_wxtoken(sandbox, &["fetch", "-c", "central.toml"], Exit::Done)?;
    run_wxtoken(sandbox, &["status", "-c", "central.toml"], Exit::Done)?;
    let [tokens, tickets] = ["mints", "tickets"].map(|what| mock_count(wechat, what));
    let (tokens, tickets) = (tokens?, tickets?);
    ensure!((tokens, tickets) == (3, 4), "WeChat gave {tokens} tokens and {tickets} tickets");
    print_text(
        &format!("  WeChat gave {tokens} tokens and {tickets} tickets in all."),
        &format!("  微信共发放 {tokens} 个 token 和 {tickets} 个 ticket。"),
    )
}

/// Requests tokens and tickets from the central server, and from a mirror that it starts.
fn serve_tokens(sandbox: &Sandbox, central: DemoServer) -> Result<DemoServer> {
    let address = central.address;
    let token = get_and_print(address, "/token/shop")?;
    get_and_print(address, "/ticket/shop/wx_card")?;
    get_and_print(address, &format!("/cgi-bin/gettoken?corpid={}&corpsecret=any", CRM.0))?;

    wait_for_reader()?;
    print_step(
        4,
        "Another host: a mirror. It takes all from the central server, and never sees an AppSecret.",
        "另一台主机做只读副本：一切取自中控，不接触 AppSecret。",
    )?;
    let config = format!(
        "dir = \"mirror\"\n\n[account.shop]\nfrom = \"http://{address}\"\ntickets = [\"jsapi\"]\n"
    );
    write_and_print(sandbox, "mirror.toml", &config)?;
    let mirror = serve(sandbox, "mirror.toml", "mirror.log")?;
    let mirrored = get_and_print(mirror.address, "/token/shop")?;
    get_and_print(mirror.address, "/ticket/shop/jsapi")?;
    ensure!(mirrored["access_token"] == token["access_token"], "the mirror has another token");
    let life = |answer: &Value| answer["expires_in"].as_u64();
    ensure!(life(&mirrored) <= life(&token), "the mirror promises more than the central server");
    Ok(mirror)
}

/// Reports a revoked token to the mirror: the central server replaces it, by one mint.
fn replace_rejected_token(
    sandbox: &Sandbox,
    wechat: SocketAddr,
    central: DemoServer,
    mirror: DemoServer,
) -> Result<()> {
    wait_for_reader()?;
    print_step(
        5,
        "Another program had other tokens made, so ours are dead. A client of the mirror says so.",
        "别的程序获取了 token，原 token 失效；只读副本的调用方报告后，自动更换一次。",
    )?;
    let rejected = token(mirror.address, "/token/shop")?;
    let minted = mock_count(wechat, "mints")?;
    http(wechat, Ipv4Addr::LOCALHOST, "POST", "/mock/kill", "")?;
    print_prompt(format_args!("curl -s -d '' http://{wechat}/mock/kill >killed"))?;
    let address = mirror.address;
    let body = serde_json::json!({ "rejected": rejected }).to_string();
    print_prompt("wxtoken get -r -c mirror.toml shop >token")?;
    print_prompt(format_args!(
        r#"sed 's/.*/{{"rejected":"&"}}/' token | curl -s -d @- http://{address}/token/shop"#
    ))?;
    let (status, answer) = http(address, Ipv4Addr::LOCALHOST, "POST", "/token/shop", &body)?;
    ensure!(status == 200, "a rejected token got {status}: {answer}");
    print_result(shortened(&answer))?;
    let replacement = token(central.address, "/token/shop")?;
    ensure!(
        replacement != rejected && answer.contains(&replacement),
        "mirror and central server disagree"
    );
    get_and_print(central.address, "/token/shop")?;
    let minted = mock_count(wechat, "mints")? - minted;
    ensure!(minted == 1, "WeChat made {minted} tokens for one that was rejected");
    print_text("  WeChat made one token for it.", "  微信只新发了一个 token。")?;

    print_prompt("cat central.log")?;
    let log = sandbox.dir.join("central.log");
    let log = poll_until(|| Ok(fs::read_to_string(&log)?), |log| log.contains("reloaded"))?;
    log.lines().try_for_each(print_result)
}

/// Writes a config file and prints how.
fn write_and_print(sandbox: &Sandbox, name: &str, text: &str) -> Result<()> {
    sandbox.write_file(name, text)?;
    let text: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
    print_prompt(format_args!("cat >{name} <<'END'\n{}\nEND", text.join("\n")))
}

/// Runs wxtoken and prints its output. Fails unless it ends with `exit`.
fn run_wxtoken(sandbox: &Sandbox, arguments: &[&str], exit: Exit) -> Result<()> {
    print_prompt(format_args!("wxtoken {}", arguments.join(" ")))?;
    let output = sandbox.run_on_terminal(sandbox.wxtoken(arguments)?)?;
    String::from_utf8_lossy(&output.stderr).lines().try_for_each(print_result)?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout.lines().try_for_each(print_result)?;
    expect(&output, exit as i32).map(|_| ())
}

/// Starts `serve --refresh` on a free port. Its stderr goes to the file `log`.
fn serve(sandbox: &Sandbox, config: &str, log: &str) -> Result<DemoServer> {
    let arguments = ["serve", "--refresh", "-c", config, "--listen"];
    let mut command: Command = sandbox.wxtoken(&arguments)?;
    command.arg("127.0.0.1:0");
    command.stderr(File::create(sandbox.dir.join(log)).context("cannot write a log")?);
    let server = sandbox.start(command)?;
    let address = server.address;
    print_prompt(format_args!("wxtoken {} {address} 2>{log} &", arguments.join(" ")))?;
    print_result(format_args!("listening on http://{}", server.address))?;
    Ok(server)
}

/// Requests `path` until the server has something to answer, and prints the answer.
fn get_and_print(address: SocketAddr, path: &str) -> Result<Value> {
    // A query as arguments fits a terminal.
    let (route, query) = path.split_once('?').unwrap_or((path, ""));
    let query: String =
        query.split('&').filter(|it| !it.is_empty()).map(|it| format!(" -d {it}")).collect();
    match query.as_str() {
        "" => print_prompt(format_args!("curl -s http://{address}{route}"))?,
        query => print_prompt(format_args!("curl -sG{query} http://{address}{route}"))?,
    }
    let get = || http(address, Ipv4Addr::LOCALHOST, "GET", path, "");
    let (status, body) = poll_until(get, |(status, _)| *status != 503)?;
    print_result(shortened(&body))?;
    if status != 200 {
        bail!("{path} got {status} instead of 200");
    }
    serde_json::from_str(&body).context("not JSON")
}

/// Returns the token that `path` answers.
fn token(address: SocketAddr, path: &str) -> Result<String> {
    let answer = http(address, Ipv4Addr::LOCALHOST, "GET", path, "")?.1;
    let answer: Value = serde_json::from_str(&answer)?;
    Ok(answer["access_token"].as_str().context("no token")?.to_owned())
}

/// Calls `probe` until `is_done` accepts its result or the time is up. Returns the last result.
fn poll_until<T>(mut probe: impl FnMut() -> Result<T>, is_done: impl Fn(&T) -> bool) -> Result<T> {
    let deadline = Instant::now() + STEP_TIMEOUT;
    loop {
        let result = probe()?;
        if is_done(&result) || Instant::now() >= deadline {
            return Ok(result);
        }
        sleep(Duration::from_millis(10));
    }
}
