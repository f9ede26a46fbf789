//! Files decide what wxtoken does and trusts only if no other user can have written them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use super::{OTHER_USER, by_other_user, make_shared, open_to_all};
use crate::support::home::{Home, wechat_with_accounts};
use crate::support::tls::{Authority, Identity};
use crate::support::*;

fn give_to_other(path: &Path) {
    chown(path, Some(OTHER_USER), Some(OTHER_USER)).unwrap();
}

const FOREIGN: &str = "belongs to user 65534, and not to root";

#[needs(root)]
#[test]
fn promise_5_root_reads_no_config_of_another_user_and_does_not_run_its_hook() {
    let wechat = wechat_with_accounts(1, &[]);
    let home = Home::with_accounts(1, &wechat.url(), "on_change = [\"touch\", \"ran\"]\n");
    home.write(&home.config().replace("\"ran\"", &format!("\"{}\"", home.path("ran").display())));
    give_to_other(&home.path("wxtoken.toml"));
    for verb in ["fetch", "get", "status", "check", "serve"] {
        home.run(&[verb]).exits(2).says(&["wxtoken.toml", FOREIGN, "mount it read-only"]);
    }
    assert_eq!(wechat.asked(), 0);
    assert!(!home.path("ran").exists());
    chown(home.path("wxtoken.toml"), Some(0), Some(0)).unwrap();
    home.run(&["fetch"]).exits(0).silent();
    assert!(home.path("ran").exists());
}

#[needs(root)]
#[test]
fn promise_5_a_secret_of_another_user_is_not_used() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    give_to_other(&sandbox.path("secret"));
    sandbox.run(&["fetch"]).exits(2).says(&["cannot read secret file", FOREIGN]);
    let home = Home::with_accounts(1, &wechat.url(), "");
    give_to_other(&home.path("a0.secret"));
    home.run(&["fetch"]).exits(2).says(&["account.a0.secret_file", FOREIGN]);
    assert_eq!(wechat.asked(), 0);
}

/// As an ordinary user meets it on a host where root has set it up: the directory of secrets may be entered by root alone.
#[needs(root)]
#[test]
fn a_secret_that_this_user_may_not_look_for_is_not_said_to_be_missing() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    let program = open_to_all(&sandbox.path(""));
    let (config, secrets) = (sandbox.path("wxtoken.toml"), sandbox.path("secrets"));
    write_with_mode(&config, "dir = 'state'\n[account.shop]\nappid = 'wx1'\n", 0o644);
    fs::create_dir(&secrets).unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o700)).unwrap();
    write_with_mode(&secrets.join("shop.secret"), "S3CR3T", 0o600);
    let mut fetch = wxtoken();
    fetch.args(["fetch", "-c"]).arg(&config);
    let ran = Run::new(by_other_user(&program, &fetch)).exits(2);
    assert!(!ran.stderr.contains("chown"), "{}", ran.stderr);
    ran.says(&["cannot read secret file", "secrets/shop.secret", "Run as user root"]);
    // Nothing is known of what is in it.
    let mut check = wxtoken();
    check.args(["check", "-c"]).arg(&config);
    let ran = Run::new(by_other_user(&program, &check));
    assert!(!ran.stdout.contains("alone on one line"), "{}", ran.stdout);
    assert!(ran.stdout.contains("Run check as the user that runs fetch"), "{}", ran.stdout);
}

/// As where root has put the files of cron's user in place.
#[needs(root)]
#[test]
fn check_by_root_tells_of_a_secret_that_the_owner_of_the_documents_cannot_read() {
    let wechat = wechat_with_accounts(1, &[]);
    let home = Home::with_accounts(1, &wechat.url(), "");
    home.run(&["fetch"]).exits(0);
    let state = home.path("state");
    let said = ["a0.secret", "sudo -u nobody ", "请执行 sudo -u nobody "];
    let check = |is_told: bool| {
        let ran = home.run(&["check"]).exits(0);
        assert_eq!(ran.stdout.contains("! a0  secret "), is_told, "{}", ran.stdout);
        if is_told {
            ran.prints(&said);
        }
    };
    check(false);
    give_to_other(&state);
    check(true);
    // In a directory of root's it is a credential of the units.
    let secrets = home.path("secrets");
    fs::create_dir(&secrets).unwrap();
    fs::rename(home.path("a0.secret"), secrets.join("a0.secret")).unwrap();
    home.write(&home.config().replace("secret_file = \"a0.secret\"\n", ""));
    check(false);
    give_to_other(&secrets);
    check(true);
    give_to_other(&secrets.join("a0.secret"));
    check(false);
}

#[needs(root)]
#[test]
fn promise_6_files_of_another_user_let_no_client_in() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    Authority::new().sign().write_to(&sandbox);
    let tls = Identity::flags(&sandbox);
    for name in ["keys", "allow", "ca.pem", "key.pem"] {
        let text = match name {
            "ca.pem" => fs::read_to_string(sandbox.path("cert.pem")).unwrap(),
            "key.pem" => fs::read_to_string(sandbox.path("key.pem")).unwrap(),
            _ => String::new(),
        };
        write_with_mode(&sandbox.path(name), &text, 0o600);
        give_to_other(&sandbox.path(name));
    }
    let path = |name: &str| sandbox.path(name).display().to_string();
    let tls: Vec<_> = tls.iter().map(String::as_str).collect();
    sandbox.serve_refused(&["--keys", &path("keys")]).says(&["keys file", FOREIGN]);
    sandbox.serve_refused(&["--allow-file", &path("allow")]).says(&["allow", FOREIGN]);
    sandbox.serve_refused(&tls).says(&["--tls-key", FOREIGN]);
    chown(sandbox.path("key.pem"), Some(0), Some(0)).unwrap();
    let ca_path = path("ca.pem");
    let ca = [&tls[..], &["--tls-client-ca", &ca_path]].concat();
    sandbox.serve_refused(&ca).says(&["--tls-client-ca", FOREIGN]);
    chown(sandbox.path("ca.pem"), Some(0), Some(0)).unwrap();
    write_with_mode(&sandbox.path("ca.pem"), &fs::read_to_string(path("cert.pem")).unwrap(), 0o664);
    sandbox.serve_refused(&ca).says(&["--tls-client-ca", "mode 0664", "chmod go-w"]);
}

/// What it names would be believed to be WeChat, and be sent the secret.
#[needs(root)]
#[test]
fn promise_5_a_ca_file_that_another_user_can_write_is_not_trusted() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let ca = Authority::new().pem;
    write_with_mode(&sandbox.path("ca.pem"), &ca, 0o666);
    let run = || sandbox.run(&["fetch", "--ca-file", sandbox.path("ca.pem").to_str().unwrap()]);
    run().exits(2).says(&["CA file", "mode 0666", "chmod go-w"]);
    write_with_mode(&sandbox.path("ca.pem"), &ca, 0o644);
    give_to_other(&sandbox.path("ca.pem"));
    run().exits(2).says(&["CA file", FOREIGN]);
    assert_eq!(wechat.asked(), 0);
    chown(sandbox.path("ca.pem"), Some(0), Some(0)).unwrap();
    run().exits(0).silent();
}

#[needs(root)]
#[test]
fn files_of_root_and_of_the_running_user_are_used_by_that_user() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let program = open_to_all(&sandbox.path(""));
    let config = format!(
        "dir = 'state'\n[account.default]\nappid = '{APPID}'\nsecret_file = 'secret'\nbase_url = '{}'\n",
        wechat.url()
    );
    write_with_mode(&sandbox.path("wxtoken.toml"), &config, 0o644); // root's
    give_to_other(&sandbox.path("secret"));
    fs::create_dir(sandbox.path("state")).unwrap();
    give_to_other(&sandbox.path("state"));
    let mut fetch = Command::new("env");
    fetch.args(["fetch", "-c"]).arg(sandbox.path("wxtoken.toml"));
    let fetch = || by_other_user(&program, &fetch);
    Run::new(fetch()).exits(0).silent();
    assert!(wechat.is_alive(&sandbox.token()));
    chown(sandbox.path("wxtoken.toml"), Some(1), Some(1)).unwrap();
    Run::new(fetch()).exits(2).says(&["belongs to user 1, and not to root or user 65534"]);
}

/// As on a host where root runs `fetch` first and gives the directory to the user of cron afterwards.
#[needs(root)]
#[test]
fn what_root_published_before_the_directory_was_given_away_is_its_owners_after_roots_next_fetch() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let program = open_to_all(&sandbox.path(""));
    sandbox.run(&["fetch"]).exits(0).silent();
    let names = ["default.json", "default.lock", "default.state"];
    let file = |name: &str| sandbox.path("state").join(name);
    let owners = || names.map(|name| fs::metadata(file(name)).unwrap().uid());
    assert_eq!(owners(), [0; 3]);
    give_to_other(&sandbox.path("state"));
    let by_owner = || {
        give_to_other(&sandbox.path("secret"));
        let ran = Run::new(by_other_user(&program, &sandbox.command(&["fetch"])));
        chown(sandbox.path("secret"), Some(0), Some(0)).unwrap();
        ran
    };
    let document = file("default.json").display().to_string();
    by_owner().exits(1).says(&[&document, "Run chown -h nobody ", "default.json as root"]);
    // The owner could have moved other files of root's there, to get at what is in them, or linked to them.
    let others = ["other.lock", "other.state"].map(file);
    write_with_mode(&others[0], "", 0o600);
    write_with_mode(&others[1], "root's own\n", 0o600);
    fs::rename(file("default.state"), file("kept")).unwrap();
    for other in &others {
        fs::rename(other, file("default.state")).unwrap();
        sandbox.run(&["fetch", "--mode", "0640"]).exits(0).silent();
        assert_eq!(owners(), [OTHER_USER, OTHER_USER, 0]);
    }
    fs::rename(file("kept"), file("default.state")).unwrap();
    fs::hard_link(file("default.state"), file("second")).unwrap();
    sandbox.run(&["fetch"]).exits(0).silent();
    assert_eq!(owners()[2], 0);
    fs::remove_file(file("second")).unwrap();
    sandbox.run(&["fetch"]).exits(0).silent();
    assert_eq!(owners(), [OTHER_USER; 3]);
    by_owner().exits(0).silent();
    assert_eq!(wechat.asked(), 1);
}

#[needs(root)]
#[test]
fn promise_4_a_document_that_another_user_put_into_a_shared_directory_is_not_handed_out() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    make_shared(&sandbox.path("state"));
    sandbox.publish("T_PLANTED", 7200, 0);
    sandbox.publish_ticket("jsapi", "K_PLANTED", 7200, 0);
    let ticket = sandbox.path("state/default.jsapi.json");
    give_to_other(&sandbox.document_path());
    give_to_other(&ticket);
    let planted = "it is user 65534's, in a directory to which every user can write";
    sandbox.run(&["get"]).exits(3).says(&[planted, "Use a directory of its own"]);
    sandbox.run(&["get", "--ticket", "jsapi"]).exits(3).says(&[planted]);
    sandbox.run(&["status"]).exits(3);
    let server = sandbox.serve(&[]);
    assert_eq!(server.get("/token").status, 503);
    // root replaces it, and hands out what it has published.
    sandbox.run(&["fetch"]).exits(0).silent();
    let token = sandbox.token();
    assert!(wechat.is_alive(&token));
    assert_eq!(server.get("/token").json()["access_token"], token.as_str());
    assert!(server.stop().contains(planted));
}

#[needs(root)]
#[test]
fn promise_2_a_document_that_cannot_be_replaced_in_a_shared_directory_costs_no_call() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let program = open_to_all(&sandbox.path(""));
    make_shared(&sandbox.path("state"));
    sandbox.publish("T_PLANTED", 7200, 0);
    fs::set_permissions(sandbox.document_path(), fs::Permissions::from_mode(0o644)).unwrap();
    chown(sandbox.document_path(), Some(1), Some(1)).unwrap();
    give_to_other(&sandbox.path("secret"));
    let fetch = by_other_user(&program, &sandbox.command(&["fetch"]));
    Run::new(fetch).exits(1).says(&["belongs to another user, in a sticky directory"]);
    assert_eq!(wechat.asked(), 0);
}

/// The other user could hold the lock for ever.
#[needs(root)]
#[test]
fn a_lock_that_another_user_put_into_a_shared_directory_is_not_waited_for() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    make_shared(&sandbox.path("state"));
    let lock = sandbox.path("state/default.lock");
    write_with_mode(&lock, "", 0o666);
    give_to_other(&lock);
    sandbox.run(&["fetch"]).exits(1).says(&[
        "default.lock",
        "user 65534's",
        "every user can write",
    ]);
    let found = fs::metadata(&lock).unwrap();
    assert_eq!((found.uid(), found.permissions().mode() & 0o777), (OTHER_USER, 0o666));
    assert_eq!(wechat.asked(), 0);
}

#[needs(root)]
#[test]
fn what_a_user_makes_under_a_umask_that_takes_its_own_permissions_is_used_again_by_that_user() {
    for mask in ["0777", "0277", "0477"] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat);
        let program = open_to_all(&sandbox.path(""));
        give_to_other(&sandbox.path("secret"));
        give_to_other(&sandbox.path(""));
        let fetch = |args: &[&str]| {
            let command = sandbox.command(args);
            let mut copy = with_environment_of(&command, &program);
            copy.args(command.get_args());
            let (user, script) =
                (OTHER_USER.to_string(), format!("umask {mask}; exec \"$0\" \"$@\""));
            let words = ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"];
            Run::new(wrapped(&[&words[..], &["sh", "-c", &script]].concat(), &copy))
        };
        fetch(&["fetch"]).exits(0).silent();
        let mode = fs::metadata(sandbox.path("state")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{mask}");
        let before = sandbox.token();
        fetch(&["fetch", "--force"]).exits(0).silent();
        assert_ne!(sandbox.token(), before, "{mask}");
    }
}
