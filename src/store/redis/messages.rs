//! Why Redis did not do what it was asked, and what to do about it. Nothing is in the server's own words, which may quote
//! what it was sent.

use crate::message::messages;

messages! {
    // It is not there.
    NOT_REACHED<1> {
        "Check that Redis runs, and the network.", "[{0}]";
        "请检查 Redis 是否运行，以及网络。", "[{0}]";
    }
    NO_ANSWER<1> {
        "See what keeps Redis busy, or raise [redis] timeout.", "no answer within {0}";
        "请检查 Redis 是否繁忙，或调大 [redis] timeout。", "{0} 内没有应答";
    }
    CLOSED<0> {
        "See the log of Redis.", "it closed the connection";
        "请查看 Redis 的日志。", "它关闭了连接";
    }
    NO_SUCH_MASTER<2> {
        "Correct the name at the end of store.", "the sentinel at {0} knows no master {1}";
        "请更正 store 末尾的名称。", "sentinel {0} 上没有 master {1}";
    }
    NO_SENTINEL<0> {
        "Name a sentinel in store.", "there is no sentinel";
        "请在 store 中写上 sentinel。", "没有 sentinel";
    }

    // What it answers.
    WANTS_PASSWORD<0> {
        "Give [redis] password_file.", "it wants a password";
        "请设置 [redis] password_file。", "需要密码";
    }
    WRONG_PASSWORD<0> {
        "Correct [redis] user and password_file.", "it refuses user or password";
        "请更正 [redis] 的 user 与 password_file。", "用户名或密码不被接受";
    }
    CHANNEL_FORBIDDEN<0> {
        "Allow &wxtoken:*, or that prefix.", "its user may not use the channel of [redis] prefix";
        "请授权 &wxtoken:*（或相应的 prefix）。", "用户无权使用 [redis] prefix 的频道";
    }
    COMMAND_FORBIDDEN<2> {
        "Allow +{0}.", "its user may not run {1}";
        "请授权 +{0}。", "用户无权执行 {1}";
    }
    SOME_COMMAND_FORBIDDEN<0> {
        "Allow +get +getrange +set +setrange +del +publish and the channel; wxtoken check names what is missing.",
        "its user may not run a command, or one that scripts call";
        "请授权 +get +getrange +set +setrange +del +publish 与频道；wxtoken check 会列出缺少的权限。",
        "用户无权执行某个命令，或脚本中的命令";
    }
    FORBIDDEN<0> {
        "See user in wxtoken.toml(5) for the ACL that is needed, and allow the keys of also.", "its user may not do this";
        "所需 ACL 见 wxtoken.toml(5) 的 user，并授权 also 的键。", "用户无权执行该操作";
    }
    REPLICA<0> {
        "Name the primary, or its sentinels.", "it is a replica, which cannot be written";
        "请填写主节点，或其 sentinel。", "它是从节点，不能写入";
    }
    NO_MEMORY<0> {
        "Raise its maxmemory.", "it has no memory left for writing";
        "请调大其 maxmemory。", "内存已满，无法写入";
    }
    CANNOT_SAVE<0> {
        "See the log of Redis.", "it refuses to write, as it cannot save";
        "请查看 Redis 的日志。", "无法落盘，拒绝写入";
    }
    FEW_REPLICAS<0> {
        "Bring its replicas back (min-replicas-to-write).", "it refuses to write without enough replicas";
        "请恢复从节点（min-replicas-to-write）。", "从节点数量不足，拒绝写入";
    }
    LOADING<0> {
        "Wait.", "it is still reading its data";
        "请稍候。", "正在加载数据";
    }
    LOST_PRIMARY<0> {
        "Bring its primary back, or name another Redis.", "it is a replica that has lost its primary";
        "请恢复其主节点，或改用其他 Redis。", "它是从节点，且与主节点失去了连接";
    }
    CLUSTER<0> {
        "Name one Redis, or sentinels.", "it is a Redis Cluster, which is not supported";
        "请填写单个 Redis，或 sentinel。", "它是 Redis Cluster，不支持";
    }
    OTHER_TYPE<1> {
        "Remove what is no string (TYPE of redis-cli tells) of {0}, or give another [redis] prefix or also key.",
        "a key of ours holds something else";
        "请删除 {0} 中不是 string 的键（用 redis-cli 的 TYPE 查看），或更换 [redis] 的 prefix 或 also 的 key。", "所用的键中有其他类型的数据";
    }
    PROTECTED<0> {
        "Give it a password, and [redis] password_file.", "it is in protected mode";
        "请为其设置密码，并写 [redis] password_file。", "它处于保护模式";
    }
    BUSY<0> {
        "Run SCRIPT KILL there.", "a script of another program keeps it busy";
        "请在其上执行 SCRIPT KILL。", "其他程序的脚本占用了它";
    }
    UNKNOWN_COMMAND<1> {
        "Use a Redis of version 3 or newer, or what speaks like it, without rename-command.", "it has no {0}";
        "请使用 3 或更新版本的 Redis 或兼容的服务，且未用 rename-command 改名。", "没有命令 {0}";
    }
    SOME_UNKNOWN_COMMAND<0> {
        "Use a Redis of version 3 or newer without rename-command, and allow +get +getrange +set +setrange +del +publish.",
        "it does not know a command, or one that scripts call";
        "请使用 3 或更新版本的 Redis，不要用 rename-command 改名，并授权 +get +getrange +set +setrange +del +publish。",
        "缺少某个命令，或脚本中的命令";
    }
    HAS_NO_PASSWORD<0> {
        "Leave out [redis] password_file.", "it has no password";
        "请去掉 [redis] password_file。", "它没有设置密码";
    }
    HAS_NO_USERS<0> {
        "Leave out [redis] user.", "it is older than Redis 6 and has no users";
        "请去掉 [redis] user。", "它早于 Redis 6，没有用户";
    }
    NO_DATABASE<0> {
        "Correct the number at the end of store.", "it has no database of this number";
        "请更正 store 末尾的编号。", "没有该编号的数据库";
    }
    FULL<0> {
        "Raise its maxclients.", "it takes no more connections";
        "请调大其 maxclients。", "连接数已满";
    }
    OTHER<0> {
        "See the log of Redis.", "it does not do it";
        "请查看 Redis 的日志。", "它未执行";
    }

    UNEXPECTED<0> {
        "Check that store names a Redis.", "its answer is none to what was asked";
        "请检查 store 指向的是否为 Redis。", "应答与请求不符";
    }

    // The file with its password.
    NO_CERTIFICATE<1> {
        "Give the CA's certificate (-----BEGIN CERTIFICATE-----).", "there is no certificate in ca_file {0}";
        "请提供 CA 证书（-----BEGIN CERTIFICATE-----）。", "ca_file {0} 中没有证书";
    }
    PASSWORD_UNREADABLE<2> {
        "Put the password alone into it.", "cannot read password file {0}: {1}";
        "请只写入密码本身。", "无法读取密码文件 {0}：{1}";
    }

    // The lock and the document.
    LOCK_LOST<1> {
        "Try again.", "the lock {0} was lost to another host: this process was paused, or Redis failed over";
        "请重试。", "锁 {0} 已被其他主机取得：本进程曾被暂停，或 Redis 发生了切换";
    }
    OVERTAKEN<1> {
        "Check whether this host was paused, or Redis failed over.",
        "another host has published a newer document at {0} meanwhile, and this one is given up";
        "请检查本机是否曾被暂停，或 Redis 是否发生了切换。", "其他主机已在 {0} 发布更新的 token，本次结果作废";
    }
}
