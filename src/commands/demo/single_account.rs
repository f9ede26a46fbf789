//! The short demo: one account. Its token is fetched, read, served to other hosts, and a refusal by WeChat is shown.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Result, bail};

use super::narration::{print_line, print_prompt, print_result, print_wxtoken, shortened, times};
use super::sandbox::{Sandbox, expect, http, mock_count};
use crate::error::Exit;
use crate::mock;

/// A client that the allowlist does not contain. All of 127.0.0.0/8 is this host.
const OTHER_CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Runs the demo. Prints what really happens, and fails at a step that goes otherwise than expected.
pub(super) fn run(sandbox: &Sandbox, keep: bool) -> Result<()> {
    let document = sandbox.dir.join("default.json");
    sandbox.write_file("secret", mock::SECRET)?;
    let wechat = sandbox.start(sandbox.wxtoken(&["mock"])?)?.address;
    let url = format!("http://{wechat}");
    // The account comes from the environment, so that no config of this machine is read.
    let wxtoken = |arguments: &[&str]| {
        let mut command = sandbox.wxtoken(arguments)?;
        command.env("WXTOKEN_DIR", &sandbox.dir).env("WXTOKEN_APPID", mock::APPID);
        Ok::<_, anyhow::Error>(command)
    };
    let run_with_secret = |arguments: &[&str]| {
        let mut command = wxtoken(arguments)?;
        command.env("WXTOKEN_SECRET_FILE", "secret").env("WXTOKEN_BASE_URL", &url);
        sandbox.run(command)
    };

    print_line("wxtoken demo: one place asks WeChat for the token, everybody else reads it.")?;
    print_line(
        "WeChat is a stand-in on this machine here; wxtoken is the real one. 微信由本机模拟，其余都是真的。",
    )?;

    print_wxtoken("fetch                                  # from cron or a timer, every minute")?;
    expect(&run_with_secret(&["fetch"])?, 0)?;
    print_result(format_args!("published {}:", document.display()))?;
    print_result(shortened(&fs::read_to_string(&document)?))?;

    print_wxtoken(
        "get                                    # in a script: the token, and the life it has left",
    )?;
    print_result(shortened(&expect(&run_with_secret(&["get"])?, 0)?))?;

    print_wxtoken("fetch                                  # again: not due, nobody is asked")?;
    expect(&run_with_secret(&["fetch"])?, 0)?;
    print_result(format_args!(
        "WeChat was asked {} in all",
        times(mock_count(wechat, "stable_token")?)
    ))?;

    let serve = ["serve", "--quiet", "--listen", "127.0.0.1:0", "--allow", "127.0.0.1"];
    let server = sandbox.start(wxtoken(&serve)?)?.address;
    print_wxtoken(
        "serve --allow 127.0.0.1                # for other hosts: allowed addresses only",
    )?;
    print_prompt(format_args!("curl http://{server}/token"))?;
    print_result(shortened(&http(server, Ipv4Addr::LOCALHOST, "GET", "/token", "")?.1))?;
    print_prompt(format_args!(
        "curl --interface {OTHER_CLIENT} http://{server}/token     # a stranger"
    ))?;
    let (status, body) = http(server, OTHER_CLIENT, "GET", "/token", "")?;
    if status != 403 {
        bail!("a stranger got {status} instead of 403");
    }
    print_result(format_args!("{status} {}", body.trim_end()))?;

    http(wechat, Ipv4Addr::LOCALHOST, "POST", "/mock/fault", "errcode:40164")?;
    print_wxtoken(
        "fetch --force                          # and when WeChat refuses: what to do, in both languages",
    )?;
    let refused = run_with_secret(&["fetch", "--force"])?;
    print_result(String::from_utf8_lossy(&refused.stderr).trim_end())?;
    expect(&refused, Exit::Refused as i32)?;
    print_wxtoken("status                                 # the published token is still there")?;
    print_result(expect(&run_with_secret(&["status"])?, 0)?.trim_end())?;

    if keep {
        http(wechat, Ipv4Addr::LOCALHOST, "POST", "/mock/fault", "none")?;
        print_line(format_args!(
            "\nGoing on until Ctrl-C: wxtoken at http://{server}/token, the stand-in at {url}"
        ))
    } else {
        print_line(
            "\nThat is all. With an account of your own: see README.md, 正式使用请看 README.zh-CN.md",
        )
    }
}
