//! The short demo: one account. Its token is fetched, read, served to other hosts, and a refusal by WeChat is shown.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Output};

use anyhow::{Result, bail};

use super::narration::{
    print_line, print_prompt, print_result, print_step, print_text, shortened, times,
};
use super::sandbox::{Sandbox, expect, http, mock_count};
use crate::error::Exit;
use crate::mock;

/// A client that the allowlist does not contain. All of 127.0.0.0/8 is this host.
const OTHER_CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Runs the demo. Prints what really happens, and fails at a step that goes otherwise than expected. Every command that it
/// prints can be typed in an empty directory.
pub(super) fn run(sandbox: &Sandbox, keep: bool) -> Result<()> {
    print_text(
        "wxtoken demo: one place asks WeChat for the token, and all others read it.",
        "wxtoken 演示：只有一处向微信获取 token，其他程序只读取。",
    )?;

    print_step(
        1,
        "A stand-in for WeChat on this machine. All else is real.",
        "微信由本机模拟，其余都是真的。",
    )?;
    let wechat = sandbox.start(sandbox.wxtoken(&["mock"])?)?.address;
    print_prompt(format_args!("wxtoken mock --listen {wechat} &"))?;

    let account = DemoAccount::set_up(sandbox, wechat)?;
    account.fetch_and_get()?;
    let server = account.serve()?;
    account.be_refused()?;

    print_line("")?;
    if keep {
        account.set_fault("none")?;
        let url = &account.url;
        print_text(
            &format!(
                "Going on until Ctrl-C: wxtoken at http://{server}/token, the stand-in at {url}"
            ),
            &format!("运行至 Ctrl-C：wxtoken 在 http://{server}/token，模拟的微信在 {url}"),
        )
    } else {
        print_text(
            "That is all. With an account of your own: see README.md.",
            "演示结束。正式使用请看 README.zh-CN.md。",
        )
    }
}

/// The account of the demo, which comes from the environment, so that no config of this machine is read.
struct DemoAccount<'a> {
    sandbox: &'a Sandbox,
    wechat: SocketAddr,
    /// That of `wechat`.
    url: String,
}

impl DemoAccount<'_> {
    fn set_up(sandbox: &Sandbox, wechat: SocketAddr) -> Result<DemoAccount<'_>> {
        let url = format!("http://{wechat}");
        print_step(
            2,
            "The account. Its AppSecret is in a file that only its owner can read.",
            "账号。AppSecret 存放在只有本人可读的文件中。",
        )?;
        print_prompt(format_args!("(umask 077; echo {} > secret)", mock::SECRET))?;
        sandbox.write_file("secret", mock::SECRET)?;
        print_prompt("export WXTOKEN_DIR=. WXTOKEN_SECRET_FILE=secret")?;
        print_prompt(format_args!("export WXTOKEN_APPID={}", mock::APPID))?;
        print_prompt(format_args!("export WXTOKEN_BASE_URL={url}"))?;
        Ok(DemoAccount { sandbox, wechat, url })
    }

    fn wxtoken(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.sandbox.wxtoken(arguments)?;
        command.env("WXTOKEN_DIR", ".").env("WXTOKEN_SECRET_FILE", "secret");
        command.env("WXTOKEN_APPID", mock::APPID).env("WXTOKEN_BASE_URL", &self.url);
        Ok(command)
    }

    /// Prints and runs a command.
    fn run(&self, arguments: &[&str]) -> Result<Output> {
        print_prompt(format_args!("wxtoken {}", arguments.join(" ")))?;
        self.sandbox.run(self.wxtoken(arguments)?)
    }

    fn set_fault(&self, fault: &str) -> Result<()> {
        http(self.wechat, Ipv4Addr::LOCALHOST, "POST", "/mock/fault", fault).map(drop)
    }

    fn fetch_and_get(&self) -> Result<()> {
        print_step(
            3,
            "fetch, every minute from cron or a timer: asks WeChat and publishes a file.",
            "fetch（由 cron 或定时器每分钟运行）：向微信获取 token，写入文件。",
        )?;
        expect(&self.run(&["fetch"])?, 0)?;
        print_prompt("cat default.json")?;
        print_result(shortened(&fs::read_to_string(self.sandbox.dir.join("default.json"))?))?;

        print_step(
            4,
            "get, in a script: prints the token with the life it has left.",
            "get（在脚本中）：输出 token 和剩余有效期。",
        )?;
        print_result(shortened(&expect(&self.run(&["get"])?, 0)?))?;

        print_step(
            5,
            "fetch again: the token is not due, and WeChat is not asked.",
            "再次 fetch：未到刷新时间，不会请求微信。",
        )?;
        expect(&self.run(&["fetch"])?, 0)?;
        let [english, chinese] = times(mock_count(self.wechat, "stable_token")?);
        print_text(
            &format!("  WeChat was asked {english} in all."),
            &format!("  共请求微信 {chinese}。"),
        )
    }

    /// Returns the address of a server that stays.
    fn serve(&self) -> Result<SocketAddr> {
        print_step(
            6,
            "serve, for other hosts: hands it to allowed addresses only.",
            "serve（供其他主机使用）：只提供给允许的地址。",
        )?;
        let serve = ["serve", "--quiet", "--listen", "127.0.0.1:0", "--allow", "127.0.0.1"];
        let server = self.sandbox.start(self.wxtoken(&serve)?)?.address;
        print_prompt(format_args!("wxtoken serve --quiet --listen {server} --allow 127.0.0.1 &"))?;
        print_prompt(format_args!("curl -s http://{server}/token"))?;
        print_result(shortened(&http(server, Ipv4Addr::LOCALHOST, "GET", "/token", "")?.1))?;
        print_prompt(format_args!(
            "curl -sw ' %{{http_code}}' --interface {OTHER_CLIENT} http://{server}/token"
        ))?;
        let (status, body) = http(server, OTHER_CLIENT, "GET", "/token", "")?;
        if status != 403 {
            bail!("an address that is not allowed got {status} instead of 403");
        }
        print_result(format_args!("{} {status}", body.trim_end()))?;
        Ok(server)
    }

    fn be_refused(&self) -> Result<()> {
        print_step(
            7,
            "WeChat refuses: the message says what to do, and the published token stays.",
            "微信拒绝时：提示怎么办，已发布的 token 保持不变。",
        )?;
        print_prompt(format_args!("curl -s -d errcode:40164 {}/mock/fault", self.url))?;
        self.set_fault("errcode:40164")?;
        let refused = self.run(&["fetch", "--force"])?;
        print_result(String::from_utf8_lossy(&refused.stderr).trim_end())?;
        expect(&refused, Exit::Refused as i32)?;
        print_prompt("wxtoken status")?;
        let status = self.sandbox.run_on_terminal(self.wxtoken(&["status"])?)?;
        print_result(expect(&status, 0)?.trim_end())
    }
}
