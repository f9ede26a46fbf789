//! The story of one account: fetched, got, handed out, refused.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Result, bail};

use super::stage::{Stage, counted, expect, http};
use super::voice::{aside, command, prompt, say, shortened, times};
use crate::error::Exit;
use crate::mock;

/// A machine of this network that nobody allowed; all of 127.0.0.0/8 is this host.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The story. Every line of it is what really happened; a step that goes otherwise ends it.
pub(super) fn tell(stage: &Stage, keep: bool) -> Result<()> {
    let document = stage.dir.join("default.json");
    stage.put("secret", mock::SECRET)?;
    let wechat = stage.start(stage.wxtoken(&["mock"])?)?.address;
    let url = format!("http://{wechat}");
    // An account of its own, so that no config of this machine is read.
    let wxtoken = |words: &[&str]| {
        let mut command = stage.wxtoken(words)?;
        command.env("WXTOKEN_DIR", &stage.dir).env("WXTOKEN_APPID", mock::APPID);
        Ok::<_, anyhow::Error>(command)
    };
    let run = |words: &[&str]| {
        let mut command = wxtoken(words)?;
        command.env("WXTOKEN_SECRET_FILE", "secret").env("WXTOKEN_BASE_URL", &url);
        stage.run(command)
    };

    say("wxtoken demo: one place asks WeChat for the token, everybody else reads it.")?;
    say(
        "WeChat is a stand-in on this machine here; wxtoken is the real one. 微信由本机模拟，其余都是真的。",
    )?;

    command("fetch                                  # from cron or a timer, every minute")?;
    expect(&run(&["fetch"])?, 0)?;
    aside(format_args!("published {}:", document.display()))?;
    aside(shortened(&fs::read_to_string(&document)?))?;

    command(
        "get                                    # in a script: the token, and the life it has left",
    )?;
    aside(shortened(&expect(&run(&["get"])?, 0)?))?;

    command("fetch                                  # again: not due, nobody is asked")?;
    expect(&run(&["fetch"])?, 0)?;
    aside(format_args!("WeChat was asked {} in all", times(counted(wechat, "stable_token")?)))?;

    let serve = ["serve", "--quiet", "--listen", "127.0.0.1:0", "--allow", "127.0.0.1"];
    let server = stage.start(wxtoken(&serve)?)?.address;
    command("serve --allow 127.0.0.1                # for other hosts: allowed addresses only")?;
    prompt(format_args!("curl http://{server}/token"))?;
    aside(shortened(&http(server, Ipv4Addr::LOCALHOST, "GET", "/token", "")?.1))?;
    prompt(format_args!("curl --interface {STRANGER} http://{server}/token     # a stranger"))?;
    let (status, body) = http(server, STRANGER, "GET", "/token", "")?;
    if status != 403 {
        bail!("a stranger got {status} instead of 403");
    }
    aside(format_args!("{status} {}", body.trim_end()))?;

    http(wechat, Ipv4Addr::LOCALHOST, "POST", "/mock/fault", "errcode:40164")?;
    command(
        "fetch --force                          # and when WeChat refuses: what to do, in both languages",
    )?;
    let refused = run(&["fetch", "--force"])?;
    aside(String::from_utf8_lossy(&refused.stderr).trim_end())?;
    expect(&refused, Exit::Refused as i32)?;
    command("status                                 # the published token is still there")?;
    aside(expect(&run(&["status"])?, 0)?.trim_end())?;

    if keep {
        http(wechat, Ipv4Addr::LOCALHOST, "POST", "/mock/fault", "none")?;
        say(format_args!(
            "\nGoing on until Ctrl-C: wxtoken at http://{server}/token, the stand-in at {url}"
        ))
    } else {
        say(
            "\nThat is all. With an account of your own: see README.md, 正式使用请看 README.zh-CN.md",
        )
    }
}
