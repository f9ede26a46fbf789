//! What the verbs say of their flags, and of what they cannot do.

use crate::message::{messages, notes};

notes! {
    TOKEN_PUBLISHED<1> = "published token {0}", "已发布 token {0}";
    TOKEN_CONFIRMED<1> = "WeChat confirmed token {0}", "微信再次给出 token {0}";
    TOKEN_KEPT<1> = "not due: token {0}", "尚未到刷新时间：token {0}";
    TICKET_PUBLISHED<1> = "published {0}", "已发布 {0}";
    PUBLISHED<2> =
        "published token {0}; the rejected token {1} was not the published one",
        "发布了 token {0}；被拒绝的 token {1} 不是此前发布的 token";
    REPLACED<2> = "replaced token {0}: published token {1}", "已更换 token {0}：发布了 token {1}";
    /// All is well, so what to do is not said first: it costs a live token.
    KEPT<2> =
        "WeChat honours token {0}, so it stays. To replace it all the same: {1}",
        "微信仍承认 token {0}，未更换。如仍要更换：{1}";
    NOT_PUBLISHED<2> =
        "nothing to do: token {0} is not the published one, which is token {1}",
        "无须处理：token {0} 不是当前发布的 token；当前为 {1}";
    LIFE<2> = "{0}, {1} left", "{0}（剩余 {1}）";
    /// Behind why a document is missing.
    OR_SYSTEM_DIR<1> = "; or is it the one in --dir {0}?", "；是否应为 --dir {0}？";
    LOOKED_IN<1> = "; looked in {0}, and --dir names another directory", "；查看的目录是 {0}，可用 --dir 指定其他目录";
}

messages! {
    REJECTED_OF_MANY<0> {
        "Name the ACCOUNT.", "--rejected is about one account's token";
        "请写明 ACCOUNT。", "--rejected 只针对一个账号的 token";
    }
    FORCE_OF_MANY<1> {
        "Name the accounts that you mean.", "--force would replace the tokens of all {0} accounts";
        "请写明要更换的账号。", "--force 会更换全部 {0} 个账号的 token";
    }
    STDIN_TWICE<0> {
        "Give the AppSecret as a file.", "--rejected - and --secret-file - cannot both read stdin";
        "请用文件提供 AppSecret。", "--rejected - 与 --secret-file - 不能同时读取标准输入";
    }
    STDIN_UNREADABLE<0> {
        "Pipe the token in.", "cannot read the rejected token from stdin";
        "请通过管道传入 token。", "无法从标准输入读取被拒绝的 token";
    }
    REJECTED_IS_FLAG<0> {
        "Give the token on stdin: --rejected -.", "--rejected is followed by a flag";
        "请从标准输入提供 token：--rejected -。", "--rejected 后面是另一个参数";
    }
    REJECTED_EMPTY<0> {
        "Give the token that WeChat rejected.", "--rejected is empty";
        "请给出被微信拒绝的 token。", "--rejected 为空";
    }
    REJECTED_NO_TOKEN<0> {
        "Give the token alone, as wxtoken get -r prints it.", "--rejected is not a token";
        "请只给出 token 本身，如 wxtoken get -r 的输出。", "--rejected 不是 token";
    }
    SHORT_LIFE<2> {
        "Give a shorter --refresh-before.",
        "--refresh-before {0} is no less than the token's whole life of {1}: every run mints another and kills the one before";
        "请调小 --refresh-before。", "--refresh-before {0} 不小于 token 的整个有效期 {1}：每次运行都会换新，使旧 token 失效";
    }
    NO_RANDOMNESS<0> {
        "Try again, and check /dev/urandom.", "the operating system gives no randomness, so there is no key";
        "请重试，并检查 /dev/urandom。", "操作系统未提供随机数，无法生成密钥";
    }
    NAME_LIKE_SECRET<0> {
        "Give a short name.", "a name in the form of an AppSecret or a key";
        "请使用简短的名称。", "名称形似 AppSecret 或访问密钥";
    }
    STDOUT_UNWRITABLE<0> {
        "Check what the output leads to.", "cannot write to stdout";
        "请检查输出的去向。", "无法写入标准输出";
    }
    CORE_DUMPS<0> {
        "Set ulimit -c 0.", "a crash may write secrets to disk, because core dumps cannot be forbidden";
        "请设置 ulimit -c 0。", "无法禁止 core dump，崩溃时可能将密钥写入磁盘";
    }
    SAME_ON_STABLE<0> {
        "Try again later.",
        "WeChat gave the same token again: on the stable API it mints another at most every 30 s and 20 times a day";
        "请稍后再试。", "微信返回了原 token：stable 接口强制刷新须间隔 30 秒、每天最多 20 次";
    }
    SAME_ON_WORK<0> {
        "If WeCom refuses it, look whether it is the right app's, and what errcode it is.",
        "WeCom gave the same token again, as it does while that lives: nothing makes it give another";
        "如仍被拒绝，请核对 token 是否属于该应用，并查看错误码。", "企业微信返回了原 token：在其有效期内不会更换";
    }
    SAME_REPORTED_TO_SOURCE<0> {
        "If WeChat refuses it, look whether it is the right account's, and what errcode it is.",
        "the wxtoken that this is a mirror of gave the same token again: it asked WeChat, which honours it";
        "如仍被拒绝，请核对 token 是否属于该账号，并查看错误码。", "上游 wxtoken 确认该 token 仍有效";
    }
    SAME_AT_SOURCE<0> {
        "If WeChat rejects it, say so with --rejected; else force it there.",
        "the wxtoken that this is a mirror of gave the same token again: to a mirror, --force is to ask that one at once";
        "token 若被微信拒绝，请用 --rejected 报告；否则请在上游强制更换。", "上游仍给出原 token：只读副本的 --force 只是立即询问上游";
    }
    EXPIRED<4> {
        "Run {3}, and see why none ran in time.", "the {0} expired at {1} ({2} ago)";
        "请运行 {3}，并排查为何没有按时刷新。", "{0} 已于 {1} 到期（{2} 前）";
    }
    TOO_SHORT<4> {
        "Run {3}, or ask for less.", "the {0} has {1} left, less than --min-life {2}";
        "请运行 {3}，或调小 --min-life。", "{0} 剩余 {1}，少于 --min-life {2}";
    }
    NOT_DUE<3> {
        "Ask for less.", "the {0} has {1} left, less than --min-life {2}, and is not due yet: fetch would keep it";
        "请调小 --min-life。", "{0} 剩余 {1}，少于 --min-life {2}，且尚未到刷新时间，fetch 不会更换";
    }
    /// A fetch alone does not get it.
    NOT_IN_TICKETS<3> {
        "Put \"{0}\" into tickets = […] of this account in the config, then run {1}.", "no {0} ticket: {2} does not exist";
        "请在配置中该账号的 tickets = […] 里加上 \"{0}\"，再运行 {1}。", "没有 {0} ticket：{2} 不存在";
    }
    NEEDS_CONFIG<1> {
        "Put the account into a config, with tickets = [\"{0}\"] (wxtoken.toml(5)).",
        "no {0} ticket: the account of the command line has none";
        "请把账号写入配置文件，并写上 tickets = [\"{0}\"]（见 wxtoken.toml(5)）。", "没有 {0} ticket：命令行指定的账号不支持 ticket";
    }
    NO_DEMO_DIR<1> {
        "Name a directory that can be written in TMPDIR.", "cannot create {0}";
        "请用 TMPDIR 指定可写的目录。", "无法创建 {0}";
    }
    NO_DOCUMENT<4> {
        "Run {2}.", "no {0}: {1} does not exist{3}";
        "请运行 {2}。", "没有 {0}：{1} 不存在{3}";
    }
    OTHERS_DOCUMENT<3> {
        "Give this account its own --file or --dir.", "no {0}: {1} belongs to {2}, another account";
        "请为此账号另行指定 --file 或 --dir。", "没有 {0}：{1} 属于另一个账号 {2}";
    }
    NO_APPID<1> {
        "Put appid = … under this account.", "{0}: a page needs the AppID";
        "请在配置的该账号中写上 appid。", "{0}：页面需要 AppID";
    }
    NO_EVENT_LOOP<0> {
        "Raise ulimit -n and -u.", "cannot start the event loop";
        "请调高 ulimit -n、-u。", "无法启动事件循环";
    }
    NO_SIGNALS<0> {
        "Raise ulimit -n.", "cannot wait for signals";
        "请调高 ulimit -n。", "无法等待信号";
    }
    GATEWAY_ALONE<0> {
        "Give --refresh as well.",
        "--gateway without --refresh: a token that WeChat rejects is not replaced here, so calls with it fail until the host \
         that asks replaces it";
        "请同时给出 --refresh。", "有 --gateway 而无 --refresh：被微信拒绝的 token 不会在此更换，调用会一直失败，直到负责刷新的主机将其更换";
    }
    ALLOWS_NO_OTHER_HOST<1> {
        "Give --allow.", "listens on {0} and allows no other host";
        "请给出 --allow。", "监听 {0}，但不允许任何其他主机";
    }
    ALLOWS_ALL<1> {
        "Name the clients' networks in --allow, or give each client a key (--keys).",
        "listens on {0} and hands tokens to every address without a key";
        "请在 --allow 中只写调用方的网段，或用 --keys 给每个调用方一个访问密钥。", "监听 {0}，任何地址无需访问密钥即可拿到 token";
    }
    FEW_DESCRIPTORS<4> {
        "Raise ulimit -n, or LimitNOFILE= of the unit.",
        "ulimit -n is {0}: that is enough for {1} connections (--max-connections is {2}){3}";
        "请调高 ulimit -n 或 LimitNOFILE=。", "ulimit -n 为 {0}，只够 {1} 个连接（--max-connections 为 {2}）{3}";
    }
    NEEDS_RESTART<0> {
        "Restart it when it suits.",
        "listen, tls_* and max_connections have changed: that counts from the next start on";
        "请在合适时重启。", "listen、tls_*、max_connections 的修改在下次启动后生效";
    }
    CA_IS_LOCKED<1> {
        "Wait for the other run.", "another run holds {0}";
        "请等待另一个进程结束。", "另一个进程持有 {0}";
    }
    CA_RENEW_AND_NAME<0> {
        "Leave out one of them.",
        "--renew and --name cannot be used together: a CA goes on signing the hosts that it was made for";
        "请去掉其中一个。", "--renew 与 --name 不能同时使用：CA 只能签发创建时指定的域名";
    }
    CA_OTHER_NAME<3> {
        "Take a CA of your own for it.",
        "--name {0}: a CA of wxtoken is for {1} and {2} alone, so that it endangers no other host";
        "其他域名请使用自建 CA。", "--name {0}：wxtoken 的 CA 只用于 {1} 和 {2}，以免危及其他主机";
    }
    CA_EXISTS<1> {
        "Give --renew for the next certificate, or another directory for another CA.",
        "{0} is there already, and nothing is overwritten";
        "续期请加 --renew，新建 CA 请换一个目录。", "{0} 已存在，不会覆盖";
    }
    CA_OPEN_DIRECTORY<1> {
        "Use a directory that you alone can write to.", "every user can write to {0}, and put another CA there";
        "请使用只有本人可写的目录。", "任何用户都可写入 {0}，并换成别的 CA";
    }
    CA_MISSING<1> {
        "Leave out --renew to make one.", "there is no CA in {0}";
        "去掉 --renew 即可新建。", "{0} 中没有 CA";
    }
    CA_NO_CERTIFICATE<1> {
        "Put its certificate back, or make another CA.", "{0} has no certificate in it";
        "请恢复其中的证书，或新建 CA。", "{0} 中没有证书";
    }
    CA_NO_PEM<1> {
        "Put it back, or make another CA.", "{0} is not PEM";
        "请恢复该文件，或新建 CA。", "{0} 不是 PEM 格式";
    }
    CA_NO_KEY<1> {
        "Put its key back, or make another CA.", "{0} has no private key in it that can sign";
        "请恢复其中的私钥，或新建 CA。", "{0} 中没有可用于签发的私钥";
    }
    CA_ENDED<1> {
        "Make another, in a directory of its own.", "this CA ended at {0}";
        "请在新目录中另建 CA。", "该 CA 已于 {0} 到期";
    }
    CA_MIXED<0> {
        "Put back the files of one CA, or make another.", "the files of this CA do not belong together";
        "请恢复同一个 CA 的文件，或新建 CA。", "该目录中的文件不属于同一个 CA";
    }
    CA_REFUSED<0> {
        "Please report it.", "clients would refuse the certificate";
        "请报告此问题。", "客户端会拒绝该证书";
    }
    MOCK_LISTEN<1> {
        "Write ADDRESS:PORT, like 127.0.0.1:0.", "--listen {0} is not one";
        "请填写 ADDRESS:PORT，如 127.0.0.1:0。", "--listen {0} 格式不对";
    }
    MOCK_FOREIGN<1> {
        "Give an address of this host alone, like 127.0.0.1:0.",
        "--listen {0} is not an address of loopback, and the stand-in is for this host only";
        "请使用本机回环地址，如 127.0.0.1:0。", "--listen {0} 不是回环地址，模拟接口仅供本机使用";
    }
    MOCK_ACCOUNT<2> {
        "Write APPID:SECRET.", "--account number {0}: {1}";
        "请填写 APPID:SECRET。", "第 {0} 个 --account：{1}";
    }
    MOCK_FAULT<2> {
        "See wxtoken mock --help for all faults.", "--fault {0}: {1}";
        "全部故障见 wxtoken mock --help。", "--fault {0}：{1}";
    }
    MOCK_LIFE<0> {
        "Give --life 1s or more.", "WeChat counts in whole seconds";
        "请用 --life 1s 或更长。", "微信以整秒计";
    }
    CA_CANNOT_SIGN<0> {
        "Please report it.", "cannot sign";
        "请报告此问题。", "无法签发";
    }
    OPAQUE_NEEDS_KEYS<0> {
        "Give --keys, too.", "--opaque-tokens needs it, as each key has tokens of its own";
        "请同时给出 --keys。", "--opaque-tokens 需要它：每个访问密钥各有自己的 token";
    }
    OPAQUE_NEEDS_GATEWAY<0> {
        "Give --gateway, too.", "--opaque-tokens needs it, as its tokens open nothing else";
        "请同时给出 --gateway。", "--opaque-tokens 需要它：这种 token 只能用于网关";
    }
    OPAQUE_NEEDS_BOTH<0> {
        "Give --keys and --gateway, too.",
        "--opaque-tokens needs them, as each key has tokens of its own, for calls through the gateway";
        "请同时给出 --keys 与 --gateway。", "--opaque-tokens 需要它们：每个访问密钥各有自己的 token，只能用于网关";
    }
}
