//! The config file: its errors, precedence over flags and environment, and relative paths.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::home::{Home, appsecret, wechat_with_accounts};
use crate::support::tls::Authority;
use crate::support::*;

/// Returns the errors that `fetch` reports for this config, without their common prefix.
#[track_caller]
fn errors(config: &str) -> Vec<String> {
    let home = Home::new(config);
    home.put_secret("s", &appsecret(1));
    let mut command = home.command(&["fetch"]);
    command.env("WXTOKEN_LANG", "en");
    let ran = Run::new(command).exits(2);
    assert_eq!(ran.stdout, "");
    let lines = home.stderr_lines(&ran);
    let strip = |line: &String| {
        line.strip_prefix("wxtoken: fetch: ").expect("an error of fetch").to_owned()
    };
    lines.iter().map(strip).collect()
}

// Errors.

#[test]
fn each_error_has_line_key_and_what_is_expected() {
    for (wrong, expected) in [
        ("dirr = 'x'", "dirr: Correct the name: there is no such key; is it dir?"),
        (
            "secrets = 1",
            "secrets: Put the secret into a file with mode 0600, and name that in secret_file: a secret has no place here",
        ),
        (
            "state = 'redis'",
            "state: Correct it, or leave it out: there is no such key; there are dir, refresh_before, mode, on_trouble_timeout, on_trouble, store, redis, account, serve",
        ),
        ("dir = 1", "dir: Write a string in quotes: found an integer"),
        ("dir = ''", "dir: Write a path: it is empty"),
        (
            "refresh_before = '5 minuets'",
            "refresh_before: Write a duration like 90s, 30m or 2h: this is not one",
        ),
        ("refresh_before = '2d'", "refresh_before: Write a day at most: this is longer"),
        (
            "refresh_before = -1",
            "refresh_before: Write a duration like 90s, 30m or 2h: this is not one",
        ),
        (
            "refresh_before = 1e3",
            "refresh_before: Write seconds as a whole number, or a string like \"90s\": found a float",
        ),
        ("mode = 0o640", "mode: Write octal digits in quotes, like \"0640\": found an integer"),
        (
            "mode = '0440'",
            "mode: Let the owner read and write it (06..): without that it cannot be replaced",
        ),
        ("account = 'shop'", "account: Write a table like [account.shop]: found a string"),
        (
            "[account]\nappid = 'wx1'",
            "account.appid: Write a table like [account.shop]: found a string",
        ),
        (
            "[[account]] #!\nappid = 'wx1'",
            "account: Write a table like [account.shop]: found an array",
        ),
        (
            "[account.Shop] #!\nappid = 'wx1'",
            "account.Shop: Correct the account's name: it begins with a small letter or digit, and has no more than 32 small letters, digits, '_' and '-'",
        ),
        (
            "[account.'a/b'] #!\nappid = 'wx1'",
            "account.[…]: Correct the account's name: it begins with a small letter or digit, and has no more than 32 small letters, digits, '_' and '-'",
        ),
        (
            "[account.''] #!\nappid = 'wx1'",
            "account.[…]: Correct the account's name: it begins with a small letter or digit, and has no more than 32 small letters, digits, '_' and '-'",
        ),
        ("[account.a]", "account.a: Write appid = … in it: it has no appid"),
        (
            "[account.a]\nappid = ''",
            "account.a.appid: Write the AppID, like wx0123456789abcdef: this is not an AppID, which has letters, digits, - and _",
        ),
        (
            "[account.a]\nappid = 'wx 1'",
            "account.a.appid: Write the AppID, like wx0123456789abcdef: this is not an AppID, which has letters, digits, - and _",
        ),
        ("[account.a]\nappid = 1", "account.a.appid: Write a string in quotes: found an integer"),
        (
            "[account.a]\nappid = 'wx1'\napi = 'Stable'",
            "account.a.api: Write one of stable, classic, work: there is no such api",
        ),
        (
            "[account.a]\nappid = 'wx1'\nsecret = 'x'",
            "account.a.secret: Put the secret into a file with mode 0600, and name that in secret_file: a secret has no place here",
        ),
        (
            "[account.a]\nappid = 'wx1'\nsecretfile = 'x'",
            "account.a.secretfile: Correct the name: there is no such key; is it secret_file?",
        ),
        (
            "[account.a]\nappid = 'wx1'\nbase_url = 'http://api.weixin.qq.com'",
            "account.a.base_url: Write https://: the AppSecret would cross the network in clear (http:// is for loopback only)",
        ),
        (
            "[account.a]\nappid = 'wx1'\nbase_url = []",
            "account.a.base_url: Put something in it, or leave it out: it is empty",
        ),
        (
            "[account.a]\nappid = 'wx1'\nbase_url = [\n'https://api.weixin.qq.com',\n'x']",
            "account.a.base_url: entry 2: Begin it with https://: it has another scheme, or none",
        ),
        (
            "[account.a]\nappid = 'wx1'\nproxy = 'proxy.example:x'",
            "account.a.proxy: Write a proxy's address, like http://proxy:3128: this is not one",
        ),
        (
            "[account.a]\nappid = 'wx1'\nfile = 'a.lock'",
            "account.a.file: End it in .json: it would be its own lock",
        ),
        (
            "[account.a]\nappid = 'wx1'\nfile = 'a.mirror'",
            "account.a.file: End it in .json: it would be a file that belongs to it",
        ),
        (
            "[account.a]\nappid = 'wx1'\nfile = '..'",
            "account.a.file: Write the path of a file: this is not a file's name",
        ),
        (
            "[account.a]\nappid = 'wx1'\nallow = ['10.0.0.1/8']",
            "account.a.allow: entry 1: Write 10.0.0.0/8 or 10.0.0.1: bits are set beyond the prefix",
        ),
        (
            "[account.a]\nappid = 'wx1'\nallow = ['10.0.0.0/8', '10.0.0.0/33']",
            "account.a.allow: entry 2: Write a prefix length of 0 to 32, or to 128 for IPv6: this is not one",
        ),
        (
            "[account.a]\nappid = 'wx1'\nallow = []",
            "account.a.allow: Put something in it, or leave it out: it is empty",
        ),
        (
            "[account.a]\nappid = 'wx1'\n[account.b]\nappid = 'wx1'",
            "account.b.appid: Leave out one of them: the same appid and api as account a",
        ),
        (
            "[account.a]\nappid = 'ww1'\napi = 'work'\nsecret_file = 's.secret'\n[account.b]\napi = 'work'\nsecret_file = 's.secret'\nappid = 'ww1'",
            "account.b.appid: Leave out one of them: the same corp and secret_file as account a",
        ),
        (
            "store = 'redis'",
            "store: Write a Redis, like redis://host:6379, rediss://host, redis+unix:///run/redis.sock or redis+sentinel://host1,host2/mymaster: this is not one",
        ),
        (
            "store = 'redis://:hunter2@cache'",
            "store: Put the password into a file with mode 0600, and name that in [redis] password_file: it has no place here",
        ),
        (
            "store = 'redis://wxtoken@cache'",
            "store: Name a file with the password in [redis] password_file: there is a user, and no password",
        ),
        (
            "store = 'redis://cache' #!\n[redis]\nca_file = 'ca.pem'",
            "store: Begin it with rediss://, or leave out ca_file of [redis]: that is for TLS",
        ),
        (
            "[redis] #!\nprefix = 'x'",
            "redis: Write store = \"redis://host\", too: [redis] goes with store, which says where that Redis is",
        ),
        (
            "store = 'redis://cache'\n[redis]\npassword = 'hunter2'",
            "redis.password: Put it into a file with mode 0600, and name that in password_file: a password has no place here",
        ),
        (
            "store = 'redis://cache'\n[redis]\nprefix = 'a b'",
            "redis.prefix: Write letters, digits, and : _ - . /, 64 at most: this is no prefix of keys",
        ),
        (
            "store = 'redis://cache'\n[redis]\ntimeout = '1m'",
            "redis.timeout: Write 10s at most: a refresh cannot wait longer",
        ),
        (
            "store = 'redis://cache'\n[redis]\nalso = 'x'",
            "redis.also: Write a list like [{ key = \"app:{appid}:token\", format = \"text\" }]: found a string",
        ),
        (
            "store = 'redis://cache'\n[redis]\nalso = [{ key = 'app:{appid}' }]",
            "redis.also: entry 1: Write format = \"text\" or \"json-string\" in it: it has no format",
        ),
        (
            "store = 'redis://cache'\n[redis]\nalso = [{ key = 'app', format = 'text' }]",
            "redis.also: entry 1.key: Put {appid} or {account} into it: two accounts would have one key",
        ),
        (
            "store = 'redis://cache'\n[redis]\nalso = [{ key = 'app:{appid}', format = 'json' }]",
            "redis.also: entry 1.format: Write text or json-string: there is no such format",
        ),
        ("serve = 1", "serve: Write a table like [serve]: found an integer"),
        ("dir = \"a\\u0000b\"", "dir: Write a path without control characters: it has one"),
        ("[serve]\nlisten = 7200", "serve.listen: Write a string in quotes: found an integer"),
        (
            "[serve]\nlisten = 'example.com:80'",
            "serve.listen: Write ADDRESS:PORT, [ADDRESS]:PORT or unix:PATH: this is none of them",
        ),
        (
            "[serve]\nallow = '10.0.0.1/8'",
            "serve.allow: Write 10.0.0.0/8 or 10.0.0.1: bits are set beyond the prefix",
        ),
        (
            "[serve]\nserver_names = ['token.example.com', 'token.example.com:80']",
            "serve.server_names: entry 2: Write a host name without a port, like token.example.com: this is not one",
        ),
        (
            "[serve]\ntrusted_proxies = ['unix', 'nginx']",
            "serve.trusted_proxies: entry 2: Write an address or a network, like 10.1.2.3 or 10.0.0.0/8: this is not one",
        ),
        ("[serve]\nrefresh = 'yes'", "serve.refresh: Write true or false: found a string"),
        (
            "[serve]\nsdk_life = '1m'",
            "serve.sdk_life: Write 61s to 2h: with less, SDKs keep no token",
        ),
        (
            "[serve]\nmax_connections = 0",
            "serve.max_connections: Write a number, 1 to 1000000: this is not one",
        ),
        (
            "[serve]\ntls-cert = 'x'",
            "serve.tls-cert: Correct the name: there is no such key; is it tls_cert?",
        ),
    ] {
        // The error is in the marked line, or else in the last.
        let marked = wrong.lines().position(|line| line.ends_with("#!"));
        let line = marked.map_or(wrong.lines().count(), |before| before + 1);
        assert_eq!(errors(wrong), [format!("wxtoken.toml:{line}: {expected}")], "{wrong}");
    }
}

#[test]
fn all_errors_are_reported_at_once_in_the_order_of_lines() {
    let home = Home::new(
        "refresh_before = '5x'\n\
         [account.shop]\n\
         apid = 'wx1'\n\
         allow = ['10.0.0.1/8', '::1']\n\
         [account.mall]\n\
         appid = 'wx2'\n\
         secret_file = 'mall.secret'\n\
         [serve]\n\
         listen = ['7200',\n\
           '127.0.0.1:7200']\n\
         refrehs = true\n",
    );
    write_with_mode(&home.path("mall.secret"), &appsecret(1), 0o644);
    let expected = [
        "wxtoken.toml:1: refresh_before: Write a duration like 90s, 30m or 2h: this is not one",
        "wxtoken.toml:2: account.shop: Write appid = … in it: it has no appid",
        "wxtoken.toml:3: account.shop.apid: Correct the name: there is no such key; is it appid?",
        "wxtoken.toml:4: account.shop.allow: entry 1: Write 10.0.0.0/8 or 10.0.0.1: bits are set beyond the prefix",
        "wxtoken.toml:7: account.mall.secret_file: Run chmod 0600 mall.secret: cannot read secret file mall.secret: it is open to others: mode 0644, expected 0600",
        "wxtoken.toml:9: serve.listen: entry 1: Write ADDRESS:PORT, [ADDRESS]:PORT or unix:PATH: this is none of them",
        "wxtoken.toml:11: serve.refrehs: Correct the name: there is no such key; is it refresh?",
    ];
    let with_secrets = expected.to_vec();
    let mut without = with_secrets.clone();
    without.remove(4);
    for (args, expected) in [
        (&["fetch"][..], &with_secrets),
        (&["fetch", "shop"], &with_secrets),
        (&["serve", "--refresh"], &with_secrets),
        // Commands that need no secret do not read them.
        (&["serve"], &without),
        (&["get", "shop"], &without),
        (&["status"], &without),
    ] {
        let mut command = home.command(args);
        command.env("WXTOKEN_LANG", "en");
        let ran = Run::new(command).exits(2);
        let expected: Vec<_> =
            expected.iter().map(|line| format!("wxtoken: {}: {line}", args[0])).collect();
        assert_eq!(home.stderr_lines(&ran), expected);
        assert_eq!(ran.stdout, "");
    }
}

#[test]
fn at_most_100_errors_are_reported() {
    let config: String = (0..150).map(|n| format!("x{n} = 1\n")).collect();
    let found = errors(&config);
    assert_eq!(found.len(), 101);
    assert_eq!(found[100], "wxtoken.toml: and 50 more");
}

#[test]
fn invalid_toml_is_reported_with_its_line_number_and_not_its_text() {
    let secret = "dec0dedec0dedec0dedec0dedec0dede";
    for (config, expected) in [
        (
            format!("dir = 'x'\n[account.shop]\nsecret_file = {secret}\n"),
            "wxtoken.toml:3: Correct the line: this is not TOML: string values must be quoted, expected literal string",
        ),
        (format!("\n\"{secret}\n"), "wxtoken.toml:2: "),
        (
            format!("{secret}\n"),
            "wxtoken.toml:1: Correct the line: this is not TOML: key with no value, expected `=`",
        ),
        (
            format!("[account.{secret}\n"),
            "wxtoken.toml:1: Correct the line: this is not TOML: unclosed table, expected `]`",
        ),
        (
            "dir = 'a'\ndir = 'b'\n".to_owned(),
            "wxtoken.toml:2: Correct the line: this is not TOML: duplicate key",
        ),
        (
            "[account.a]\nappid='wx1'\n\n[account.a]\nappid='wx2'\n".to_owned(),
            "wxtoken.toml:4: Correct the line: this is not TOML: duplicate key",
        ),
    ] {
        let found = errors(&config);
        assert!(found.iter().any(|line| line.starts_with(expected)), "{config}\n{found:?}");
        assert!(!found.concat().contains(secret), "{found:?}");
    }
}

#[test]
fn an_also_key_must_differ_from_wxtokens_keys_and_between_accounts() {
    let errors_of = |also: &str| {
        errors(&format!(
            "store = 'redis://cache'\n[redis]\nalso = [{also}]\n\
             [account.a]\nappid = 'wx1'\nsecret_file = 's.secret'\n\
             [account.b]\nappid = 'wx1'\nsecret_file = 's.secret'\napi = 'classic'\n"
        ))
    };
    let lead = |account, line, action| {
        format!("wxtoken.toml:{line}: account.{account}: {action}: its key")
    };
    assert_eq!(
        errors_of("{ key = 'wxtoken:{account}', format = 'text' }"),
        [('a', 4), ('b', 7)].map(|(account, line)| format!(
            "{} wxtoken:{account} of [redis] also begins with wxtoken: as the keys of wxtoken itself do",
            lead(account, line, "Give it another name")
        ))
    );
    assert_eq!(
        errors_of("{ key = 'app:{appid}', format = 'text' }"),
        [format!(
            "{} app:wx1 of [redis] also is that of account a, too",
            lead('b', 7, "Put {account} into it")
        )]
    );
    let twice = "{ key = '{account}', format = 'text' }, { key = '{account}', format = 'text' }";
    assert_eq!(
        errors_of(twice),
        [('a', 4), ('b', 7)].map(|(account, line)| format!(
            "{} {account} of [redis] also is there twice",
            lead(account, line, "Leave out one of them")
        ))
    );
    // What would never be written is no key.
    assert_eq!(
        errors(
            "store = 'redis://cache'\n[redis]\nalso = [{ key = '{appid}', format = 'text' }]\n\
             [account.a]\nfrom = 'https://central'\n"
        ),
        [
            "wxtoken.toml:4: account.a: Give this account its appid: the key {appid} of [redis] also has the AppID in it"
        ]
    );
}

/// Tries secrets of all shapes in all places, at the highest verbosity.
#[test]
fn no_error_shows_a_secret_wherever_it_is_in_the_file() {
    let secret = "5ec2e75ec2e75ec2e75ec2e75ec2e75e";
    let corpsecret = "xPk1N_Zx9oRrMnIqS-mG4g8tW7vHbY2dQcJ5eLfA0uK";
    let (key, token) = (format!("wxk_{corpsecret}"), format!("72_{}", "aZ-9_".repeat(27)));
    let secrets = [secret, corpsecret, &key, &token];
    let shapes = [
        "'S'",
        "['S']",
        "['a', 'S']",
        "[['S']]",
        "{ S = 1 }",
        "{ x = 'S' }",
        "S",
        "'S",
        "\"\"\"S",
        "1 S",
        "'https://S'",
        "'http://u:S@p'",
        "'x/S.x'",
        "'S/x'",
    ];
    let of_account = [
        "appid",
        "api",
        "secret_file",
        "from",
        "key_file",
        "base_url",
        "refresh_before",
        "tickets",
        "on_change",
        "on_change_timeout",
        "file",
        "ca_file",
        "proxy",
        "allow",
        "secret",
        "x",
    ];
    let of_serve = [
        "listen",
        "allow",
        "allow_file",
        "trusted_proxies",
        "server_names",
        "keys",
        "tls_cert",
        "tls_key",
        "tls_client_ca",
        "refresh",
        "gateway",
        "sdk_life",
        "max_connections",
        "secret",
        "x",
    ];
    let of_redis =
        ["user", "password_file", "ca_file", "prefix", "timeout", "also", "password", "x"];
    let mut configs = Vec::new();
    for shape in shapes {
        let on_top =
            ["dir", "refresh_before", "mode", "store", "account", "redis", "serve", "secret", "x"];
        configs.extend(on_top.map(|key| ("fetch", format!("{key} = {shape}\n"))));
        for key in of_account {
            let others =
                ["appid = 'wx1'", "secret_file = 'a.secret'", "base_url = 'http://127.0.0.1:1'"];
            let others = others.into_iter().filter(|line| !line.starts_with(&format!("{key} ")));
            let others: String = others.map(|line| format!("{line}\n")).collect();
            configs.push(("fetch", format!("[account.a]\n{others}{key} = {shape}\n")));
        }
        let store = "[account.a]\nappid = 'wx1'\nsecret_file = 'a.secret'\n[redis]";
        configs.extend(of_redis.map(|key| {
            ("fetch", format!("store = 'rediss://127.0.0.1:1'\n{store}\n{key} = {shape}\n"))
        }));
        configs.extend(of_serve.map(|key| ("serve", format!("[serve]\n{key} = {shape}\n"))));
    }
    let of_each_shape = configs.len() / shapes.len();
    let names = [
        "S",
        "S = 1",
        "'S' = 1",
        "[S]",
        "[account.S]",
        "[account.S]\nappid = 'wx1'",
        "[account.a.S]",
        "[serve.S]",
        "account.S = 1",
        "[[S]]",
        "# S\nx = 1",
        "S.S = 'S'",
        "[account.S]\nappid = 'wx1'\nsecret_file = 'none'\n[account.b]\nappid = 'wx1'\n[account.S2]\nappid = 'wx1'",
    ];
    configs.extend(names.map(|text| ("fetch", text.to_owned())));
    let is_refused = |verb: &str, config: &str, secret: &str| {
        let home = Home::new(&config.replace('S', secret));
        home.put_secret("a", &appsecret(1));
        let mut command = home.command(&[verb, "-vvv"]);
        match verb {
            "fetch" => command.args(["--timeout", "1"]),
            // A usage error in any case, so that the server does not start.
            _ => command.args(["--listen", "unix:/dev/null"]),
        };
        let ran = Run::new(command);
        let shown = format!("{}{}", ran.stdout, ran.stderr);
        assert!(!shown.contains(secret), "{config}\n{shown}");
        ran.status.code() == Some(2)
    };
    // Each shape in each place with one of the secrets, and in each place all of them.
    let cases: Vec<(&str, &str, &str)> = configs
        .iter()
        .enumerate()
        .map(|(nth, (verb, config))| {
            (*verb, config.as_str(), secrets[(nth / of_each_shape + nth) % secrets.len()])
        })
        .collect();
    // At the same time, since some wait for a host that does not exist.
    let refused: usize = std::thread::scope(|scope| {
        let is_refused = &is_refused;
        let count = |cases: &[(&str, &str, &str)]| {
            cases.iter().filter(|(verb, config, secret)| is_refused(verb, config, secret)).count()
        };
        let chunks = cases.chunks(cases.len().div_ceil(4));
        let counts: Vec<_> = chunks.map(|chunk| scope.spawn(move || count(chunk))).collect();
        counts.into_iter().map(|it| it.join().unwrap()).sum()
    });
    let all = cases.len();
    assert!(refused * 10 > all * 9, "{refused} of {all}");
}

#[test]
fn a_config_that_is_writable_by_others_or_not_utf8_is_refused() {
    let home = Home::new("[account.shop]\nappid = 'wx1'\n");
    let path = home.path("wxtoken.toml");
    for (mode, is_fine) in
        [(0o644, true), (0o600, true), (0o664, false), (0o646, false), (0o666, false)]
    {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let ran = home.run(&["get"]);
        if is_fine {
            ran.exits(3).says(&["no token"]);
        } else {
            ran.exits(2).says(&[
                "wxtoken.toml: it can be written by others",
                &format!("{mode:04o}"),
                &format!("Run chmod go-w {}:", path.display()),
                &format!("请执行 chmod go-w {0}：无法读取配置文件 {0}", path.display()),
            ]);
        }
    }
    fs::write(&path, b"dir = 'x'\n# \xd6\xd0\xce\xc4\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    home.run(&["get"]).exits(2).says(&["wxtoken.toml:2: ", "this is not UTF-8"]);
    fs::write(&path, " ".repeat(5 * 1024 * 1024)).unwrap();
    home.run(&["get"]).exits(2).says(&["wxtoken.toml: it is larger than 4 MiB"]);
    fs::remove_file(&path).unwrap();
    home.run(&["get"]).exits(2).says(&["cannot read config", "wxtoken.toml", "No such file"]);
    fs::create_dir(&path).unwrap();
    home.run(&["get"]).exits(2).says(&["wxtoken.toml", "not a plain file"]);
    // With a byte order mark and CRLF, as Notepad on Windows saves it.
    let windows = Home::new("\u{feff}[account.shop]\r\nappid = 'wx1' # 小店\r\n");
    windows.run(&["get"]).exits(3).says(&["no token"]);
}

// Precedence.

#[test]
fn a_flag_overrides_the_environment_which_overrides_the_config_which_overrides_the_default() {
    let home = Home::new("dir = 'of-file'\n[account.shop]\nappid = 'wx1'\n");
    let config = home.path("wxtoken.toml");
    let file = |flags: &[&str], variables: &[(&str, &str)]| {
        let mut command = wxtoken();
        command.args(["status", "--format", "json", "--config"]).arg(&config);
        for (flag, dir) in flags.chunks(2).map(|pair| (pair[0], pair[1])) {
            command.arg(flag).arg(home.path(dir));
        }
        for (name, dir) in variables {
            command.env(name, home.path(dir));
        }
        let json = Run::new(command).exits(3).json();
        let file = json["accounts"][0]["file"].as_str().unwrap().to_owned();
        let dir = file.strip_suffix("/shop.json").unwrap();
        dir.strip_prefix(home.path("").to_str().unwrap()).unwrap().to_owned()
    };
    // STATE_DIRECTORY of a systemd unit has the rank of a default.
    let unit = ("STATE_DIRECTORY", "of-unit");
    let variable = ("WXTOKEN_DIR", "of-environment");
    assert_eq!(file(&["--dir", "of-flag"], &[variable, unit]), "of-flag");
    assert_eq!(file(&[], &[variable, unit]), "of-environment");
    assert_eq!(file(&[], &[unit]), "of-file");
    home.write("[account.shop]\nappid = 'wx1'\n");
    assert_eq!(file(&[], &[unit]), "of-unit");
}

#[test]
fn refresh_before_can_be_set_for_an_account_for_all_or_by_a_flag() {
    let state = |config: &str, args: &[&str]| {
        let home = Home::new(config);
        home.publish("shop", "wx1", "T1", 3600);
        let mut command = home.command(&["status", "--format", "json"]);
        let ran = Run::new({
            command.args(args);
            command
        });
        ran.exits(0).json()["accounts"][0]["state"].as_str().unwrap().to_owned()
    };
    let shop = "[account.shop]\nappid = 'wx1'\n";
    assert_eq!(state(shop, &[]), "live");
    assert_eq!(state(&format!("refresh_before = '90m'\n{shop}"), &[]), "due");
    assert_eq!(state(&format!("refresh_before = 5400\n{shop}"), &[]), "due");
    assert_eq!(state(&format!("refresh_before = '90m'\n{shop}refresh_before = '1m'"), &[]), "live");
    assert_eq!(state(&format!("{shop}refresh_before = '1m'"), &["--refresh-before", "90m"]), "due");
}

#[test]
fn paths_are_relative_to_the_config() {
    let wechat = WeChat::start();
    let home = Home::new(&format!(
        "dir = 'here/state'\nmode = '0640'\n[account.shop]\nappid = '{APPID}'\nsecret_file = 'secrets/shop'\n\
         base_url = '{0}'\n[account.mall]\nappid = '{APPID}'\nsecret_file = 'secrets/shop'\napi = 'classic'\n\
         base_url = '{0}'\nfile = 'there/mall.json'\n",
        wechat.url()
    ));
    fs::create_dir(home.path("secrets")).unwrap();
    write_with_mode(&home.path("secrets/shop"), SECRET, 0o600);
    let mut fetch = wxtoken();
    // With a relative path, from another directory.
    fetch.args(["fetch", "-c", "../wxtoken.toml"]).current_dir(home.path("secrets"));
    Run::new(fetch).exits(0).silent();
    let modes = || {
        ["here/state/shop.json", "there/mall.json"].map(|document| {
            fs::metadata(home.path(document)).expect(document).permissions().mode() & 0o777
        })
    };
    assert_eq!(modes(), [0o640, 0o640]);
    home.run(&["fetch", "--mode", "0600"]).exits(0).silent();
    assert_eq!(modes(), [0o600, 0o600], "the flag overrides the config");
}

#[test]
fn an_account_on_the_command_line_replaces_those_of_the_config() {
    let wechat = WeChat::start();
    let home = Home::new(
        "mode = '0644'\n[account.shop]\nappid = 'wx1'\nbase_url = 'http://127.0.0.1:1'\n",
    );
    home.put_secret("given", SECRET);
    let mut fetch = home.command(&["fetch", "--appid", APPID, "--base-url", &wechat.url()]);
    fetch.arg("--secret-file").arg(home.path("given.secret"));
    Run::new(fetch).exits(0).silent();
    assert!(home.token("default").is_some() && home.token("shop").is_none());
    // Settings for all accounts apply to it, too.
    let mode = fs::metadata(home.document_path("default")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    home.run(&["get", "-r", "--appid", APPID]).exits(0);
    // A config without accounts can be combined with one.
    let home = Home::new("[serve]\nallow = '127.0.0.1'\n");
    home.publish("default", "wx9", "T9", 0);
    assert_eq!(home.run(&["get", "-r"]).exits(0).stdout, "T9\n");
    home.run(&["fetch"]).exits(2).says(&["Give --appid", "no account"]);
}

/// Each setting of an account, with its flag and a value.
const ACCOUNT_FLAGS: [(&str, &str); 5] = [
    ("--secret-file", "x"),
    ("--api", "classic"),
    ("--base-url", "https://x"),
    ("--ca-file", "x"),
    ("--file", "x.json"),
];

/// Returns the variable of a flag.
fn variable(flag: &str) -> String {
    format!("WXTOKEN_{}", flag.trim_start_matches('-').replace('-', "_").to_uppercase())
}

#[test]
fn a_setting_of_an_account_beside_a_config_is_an_error_whatever_way_it_comes() {
    let home = Home::new("[account.shop]\nappid = 'wx1'\n");
    home.publish("shop", "wx1", "T1", 0);
    let config = home.path("wxtoken.toml");
    for (flag, value) in ACCOUNT_FLAGS {
        let name = variable(flag);
        for verb in ["fetch", "get", "status", "check", "serve"] {
            let goes_with_appid = |name: &str| [name.to_owned(), "goes with --appid".to_owned()];
            let says = |command: Command, name: &str| {
                let [name, goes] = goes_with_appid(name);
                Run::new(command).exits(2).says(&[&name, &goes, "wxtoken.toml"]);
            };
            // Typed; from the environment; and with the config from the environment, too.
            says(home.command(&[verb, flag, value]), flag);
            let mut command = home.command(&[verb]);
            command.env(&name, value);
            says(command, &name);
            let mut command = wxtoken();
            command.arg(verb).env(&name, value).env("WXTOKEN_CONFIG", &config);
            says(command, &name);
            if verb != "serve" {
                let mut command = home.command(&[verb, "shop"]);
                command.env(&name, value);
                says(command, &name);
            }
        }
    }
    // All of them are named.
    let mut command = home.command(&["get", "--api", "classic"]);
    command.env("WXTOKEN_BASE_URL", "https://x").env("WXTOKEN_CA_FILE", "x");
    Run::new(command).exits(2).says(&["--api and WXTOKEN_BASE_URL and WXTOKEN_CA_FILE go with"]);
    // An empty variable is none.
    let mut command = home.command(&["get", "-r"]);
    command.envs(ACCOUNT_FLAGS.map(|(flag, _)| (variable(flag), "")));
    assert_eq!(Run::new(command).exits(0).stdout, "T1\n");
}

/// A test run, told by a variable to ask a stand-in, must not ask another server with the config's secret.
#[test]
fn wxtoken_base_url_beside_a_config_asks_no_server() {
    let (real, stand_in) = (wechat_with_accounts(1, &[]), wechat_with_accounts(1, &[]));
    let home = Home::with_accounts(1, &real.url(), "");
    for args in [&["fetch"][..], &["fetch", "a0"], &["check"]] {
        let mut command = home.command(args);
        command.env("WXTOKEN_BASE_URL", stand_in.url());
        Run::new(command).exits(2).says(&["WXTOKEN_BASE_URL"]);
    }
    assert_eq!((real.asked(), stand_in.asked()), (0, 0));
}

#[test]
fn an_account_from_the_environment_beside_a_typed_config_or_name_is_an_error() {
    let home = Home::new("[account.shop]\nappid = 'wx1'\n");
    home.publish("shop", "wx1", "T1", 0);
    home.publish("default", "wx9", "T9", 0);
    let config = home.path("wxtoken.toml");
    let get = |set: &dyn Fn(&mut Command) -> &mut Command| {
        let mut command = wxtoken();
        command
            .args(["get", "-r"])
            .env("STATE_DIRECTORY", home.path("state"))
            .env("WXTOKEN_APPID", "wx9");
        set(&mut command);
        Run::new(command)
    };
    get(&|command| command.arg("-c").arg(&config)).exits(2).says(&[
        "WXTOKEN_APPID",
        "--config",
        "wxtoken.toml",
        "Unset",
    ]);
    get(&|command| command.arg("-c").arg(&config).env("WXTOKEN_API", "classic"))
        .exits(2)
        .says(&["WXTOKEN_APPID and WXTOKEN_API"]);
    get(&|command| command.arg("shop").env("WXTOKEN_CONFIG", &config)).exits(2).says(&[
        "WXTOKEN_APPID",
        "ACCOUNT",
        "wxtoken.toml",
        "Unset",
    ]);
    // Both from the environment: the account has priority.
    let account = "T9\n";
    assert_eq!(get(&|it| it.env("WXTOKEN_CONFIG", &config)).exits(0).stdout, account);
    // The account is typed, too.
    let typed = get(&|it| it.arg("-c").arg(&config).args(["--appid", "wx9"]));
    assert_eq!(typed.exits(0).stdout, account);
    // A config without accounts leaves them to the environment.
    home.write("mode = '0600'\n");
    assert_eq!(get(&|it| it.arg("-c").arg(&config)).exits(0).stdout, account);
}

#[test]
fn a_name_of_an_account_needs_a_config_and_excludes_appid() {
    let home = Home::new("[account.shop]\nappid = 'wx1'\n");
    for verb in ["fetch", "get", "status"] {
        let ran = home.run(&[verb, "shop", "--appid", "wx1"]).exits(2);
        ran.mentions(&["Leave out ACCOUNT or --appid"]);
        let mut nowhere = wxtoken();
        nowhere.args([verb, "shop"]).env("HOME", home.path("."));
        Run::new(nowhere).exits(2).says(&["ACCOUNT", "--config"]);
    }
    home.run(&["get", "--appid", ""]).exits(2).says(&["--appid: Write the AppID"]);
}

#[test]
fn a_typed_dir_that_would_be_the_place_of_no_document_is_an_error() {
    let home = Home::new(
        "[account.a]\nappid = 'wx1'\nfile = 'a.json'\n[account.b]\nappid = 'wx2'\nfile = 'b.json'\n[account.c]\nappid = 'wx3'\n",
    );
    home.run(&["status", "--dir", "x"]).exits(3); // It is that of c.
    for names in [&["a"][..], &["a", "b"]] {
        let ran = home.run(&[&["status", "--dir", "x"], names].concat());
        ran.exits(2).says(&["--dir has no meaning here", "wxtoken.toml"]);
    }
    // A default is overridden without an error.
    let mut status = home.command(&["status", "a", "b"]);
    status.env("WXTOKEN_DIR", "x");
    Run::new(status).exits(3);

    // The document of the environment would win over the flag.
    home.publish("default", "wx9", "T9", 0);
    let get = |flags: &[&str], file: &str| {
        let mut command = wxtoken();
        command
            .args(["get", "-r"])
            .args(flags)
            .current_dir(home.path(""))
            .env("WXTOKEN_FILE", file);
        Run::new(command)
    };
    get(&["--dir", "elsewhere"], "state/default.json")
        .exits(2)
        .says(&["WXTOKEN_FILE state/default.json is not in --dir elsewhere"]);
    for flags in [&["--dir", "state"][..], &["--file", "state/default.json", "--dir", "elsewhere"]]
    {
        assert_eq!(get(flags, "state/default.json").exits(0).stdout, "T9\n", "{flags:?}");
    }
}

#[test]
fn a_misspelt_variable_is_an_error_and_those_of_other_programs_are_not() {
    let home = Home::new("[account.shop]\nappid = 'wx1'\n");
    home.publish("shop", "wx1", "T1", 0);
    let get = |name: &str, value: &str| {
        let mut command = home.command(&["get", "-r"]);
        command.env(name, value);
        Run::new(command)
    };
    for (name, meant) in [
        ("WXTOKEN_BASEURL", "WXTOKEN_BASE_URL"),
        ("WXTOKEN_SECRETFILE", "WXTOKEN_SECRET_FILE"),
        ("WXTOKEN_APP_ID", "WXTOKEN_APPID"),
    ] {
        let ran = get(name, "S3CR3T").exits(2);
        assert!(!ran.stderr.contains("S3CR3T"), "{}", ran.stderr);
        ran.says(&[&format!("there is no variable {name}: is it {meant}?")]);
        get(name, "").exits(0);
    }
    // Those of the SDKs' recipes, of Kubernetes for a service called wxtoken, and of flags that another verb has.
    for name in
        ["WXTOKEN_URL", "WXTOKEN_KEY", "WXTOKEN_SERVICE_HOST", "WXTOKEN_PORT", "WXTOKEN_ALLOW"]
    {
        get(name, "x").exits(0);
    }
}

/// Runs in a mount namespace with an /etc of its own.
#[needs(mount)]
#[test]
fn the_system_config_is_read_if_no_account_is_given() {
    let home = Home::new("[account.shop]\nappid = 'wx1'\n");
    home.publish("shop", "wx1", "T1", 0);
    home.publish("default", "wx9", "T9", 0);
    let script = r#"
        mount -t tmpfs tmpfs /etc
        "$WXTOKEN" get -r
        mkdir /etc/wxtoken
        cp wxtoken.toml /etc/wxtoken/wxtoken.toml
        "$WXTOKEN" get -r
        "$WXTOKEN" get -r --appid wx9
        "$WXTOKEN" get -r --file state/default.json
        WXTOKEN_APPID=wx9 "$WXTOKEN" get -r
        WXTOKEN_APPID= "$WXTOKEN" get -r
        "$WXTOKEN" get -r shop
        ! WXTOKEN_APPID=wx9 "$WXTOKEN" get -r shop
        ! WXTOKEN_FILE=state/default.json "$WXTOKEN" get -r shop
        ! WXTOKEN_BASE_URL=https://x "$WXTOKEN" get -r
        "$WXTOKEN" demo >/dev/null
    "#;
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "bash", "-euc", script]);
    unshare.current_dir(home.path("")).env("STATE_DIRECTORY", home.path("state"));
    unshare.env("WXTOKEN", wxtoken().get_program());
    // They may name files in the other /etc.
    unshare.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
    assert_eq!(Run::new(unshare).exits(0).stdout, "T9\nT1\nT9\nT9\nT9\nT1\nT1\n");
}

// [serve].

#[test]
fn serve_uses_the_config_and_flags_override_it() {
    let home = Home::new(
        "[account.shop]\nappid = 'wx1'\n[serve]\nlisten = ['127.0.0.1:0', 'unix:wx.sock']\nallow_file = 'allow'\n\
         trusted_proxies = '127.0.0.1'\nkeys = 'keys'\n",
    );
    home.publish("shop", "wx1", "T1", 0);
    let mut key = wxtoken();
    key.args(["key", "php"]);
    let printed = Run::new(key).exits(0).stdout;
    let field = |label: &str| {
        let line = printed.lines().find_map(|line| line.strip_prefix(label)).unwrap();
        line.trim().to_owned()
    };
    write_with_mode(&home.path("keys"), &field("line:"), 0o644);
    write_with_mode(&home.path("allow"), "127.0.0.1 10.9.9.9", 0o644);
    let server = Server::start(home.command(&["serve"]), 2);
    assert_eq!(server.addresses[1], format!("unix:{}", home.path("wx.sock").display()));
    let ask = |server: &Server, headers: &str| {
        server
            .send(&format!(
                "GET /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
            ))
            .status
    };
    let bearer = format!("Authorization: Bearer {}\r\n", field("key:"));
    assert_eq!((ask(&server, ""), ask(&server, &bearer)), (401, 200));
    // The proxy is trusted, so the address of its client counts.
    let behind = |address: &str| format!("{bearer}X-Forwarded-For: {address}\r\n");
    assert_eq!(ask(&server, &behind("10.9.9.9")), 200);
    assert_eq!(ask(&server, &behind("10.9.9.8")), 403);
    server.stop();

    write_with_mode(&home.path("other-keys"), "", 0o644);
    let mut command =
        home.command(&["serve", "--listen", "127.0.0.1:0", "--trusted-proxy", "10.0.0.1"]);
    command.arg("--keys").arg(home.path("other-keys"));
    let server = Server::start(command, 1);
    assert_eq!(ask(&server, &bearer), 401, "the config's keys file does not apply");
    assert_eq!(ask(&server, &behind("10.9.9.9")), 403, "the config's proxy does not apply");
}

#[test]
fn certificate_paths_are_relative_to_the_config() {
    let home = Home::new(
        "[account.shop]\nappid = 'wx1'\n[serve]\nlisten = '127.0.0.1:0'\ntls_cert = 'cert.pem'\ntls_key = 'key.pem'\n",
    );
    let identity = Authority::new().sign();
    write_with_mode(&home.path("cert.pem"), &identity.cert, 0o644);
    write_with_mode(&home.path("key.pem"), &identity.key, 0o600);
    let server = Server::start(home.command(&["serve"]), 1);
    assert!(server.addresses[0].starts_with("https://"), "{:?}", server.addresses);
    home.write(&home.config().replace("tls_key", "tls_client_ca"));
    home.run(&["serve"]).exits(2).says(&["--tls-cert needs the certificate's private key"]);
}
