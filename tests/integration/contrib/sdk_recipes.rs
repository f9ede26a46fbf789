//! The recipes in `contrib/sdk` for Go and PHP. Their SDKs are not installed: small programs make the calls as these do.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::sdk::{SdkSetup, Worker, new_key};
use crate::support::*;

fn in_tree(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Returns a program that makes API calls with the recipe for silenceper/wechat.
fn with_go(setup: &SdkSetup) -> Command {
    let dir = setup.sandbox.path("go");
    fs::create_dir_all(dir.join("wxtoken")).unwrap();
    fs::write(dir.join("go.mod"), "module recipe\n\ngo 1.19\n").unwrap();
    fs::copy(in_tree("tests/sdks/go/main.go"), dir.join("main.go")).unwrap();
    let recipe = in_tree("contrib/sdk/go/wxtoken.go");
    fs::copy(recipe, dir.join("wxtoken/wxtoken.go")).unwrap();
    let mut build = Command::new("go");
    build.args(["build", "-o", "driver", "."]).current_dir(&dir);
    build.env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go"));
    build.env("GOPROXY", "off").env("GOTOOLCHAIN", "local").env("GOFLAGS", "-mod=mod");
    Run::new(build).exits(0);
    let mut command = Command::new(dir.join("driver"));
    setup.set_environment(&mut command);
    command
}

/// Returns the same with the recipe for EasyWeChat.
fn with_php(setup: &SdkSetup) -> Command {
    let mut command = Command::new("php");
    command.arg(in_tree("tests/sdks/php/driver.php")).arg(in_tree("contrib/sdk/easywechat"));
    setup.set_environment(&mut command);
    command
}

/// Nothing told wxtoken of a rejected token, and it was kept.
fn a_rejected_token_heals_within_the_call(program: fn(&SdkSetup) -> Command) {
    let setup = SdkSetup::around(WeChat::start(), "stable", Sandbox::serve_refreshing);
    let mut worker = Worker::start(program(&setup));
    worker.call_succeeds();
    worker.call_succeeds();
    assert_eq!(setup.wxtoken_tap.requests(), ["GET /token"], "it is kept");
    setup.wechat_tap.requests();
    let mints = setup.wechat.mints();
    setup.wechat.kill_tokens();
    worker.call_succeeds();
    assert_eq!(setup.wxtoken_tap.requests(), ["POST /token"]);
    assert_eq!(setup.wechat_tap.requests().len(), 2, "the call is made once more");
    assert_eq!(setup.wechat.mints(), mints + 1);
    worker.call_succeeds();
    assert_eq!(setup.wxtoken_tap.requests(), [""; 0], "the new token is kept");

    // Another token, such as a user's of sns/*, is none of wxtoken's.
    assert_eq!(worker.ask("foreign"), "error 40001");
    assert_eq!(setup.wxtoken_tap.requests(), [""; 0]);

    // With a wrong key the reason is the server's, not WeChat's.
    let mut command = program(&setup);
    command.env("WXTOKEN_KEY", new_key().0);
    let result = Worker::start(command).call();
    assert!(result.contains("not in the server's keys file"), "{result}");
}

#[needs(go)]
#[test]
fn with_the_recipe_for_go_a_rejected_token_heals_within_the_call() {
    a_rejected_token_heals_within_the_call(with_go);
}

#[needs(php, php_symfony)]
#[test]
fn with_the_recipe_for_easywechat_a_rejected_token_heals_within_the_call() {
    a_rejected_token_heals_within_the_call(with_php);
}
