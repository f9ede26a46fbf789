//! What is said about a command line and a config that do not go together.

use crate::message::messages;

messages! {
    NO_CONFIG<0> {
        "Give --config, or leave ACCOUNT out.",
        "ACCOUNT is the name of an account in a config, and there is none";
        "请用 --config 指定配置，或去掉 ACCOUNT。", "ACCOUNT 是配置中的账号名，而当前没有配置";
    }
    WHICH_ACCOUNT<2> {
        "Name the ACCOUNT.", "which ACCOUNT? {0} has {1}";
        "请写明 ACCOUNT。", "{0} 中有多个账号：{1}";
    }
    TWO_SECRETS<2> {
        "Unset one of them.", "{0} and {1} both say what the AppSecret is";
        "请只保留一个。", "{0} 与 {1} 都指定了 AppSecret";
    }
    NEEDS_APPID<2> {
        "Say it in {1}, or give --appid.", "{0} with --appid, and the accounts are those of {1}";
        "请写在 {1} 中，或给出 --appid。", "{0} 须与 --appid 一起使用，而当前账号来自 {1}";
    }
    OTHER_ACCOUNT<3> {
        "Unset what is not meant.", "{0}: this is another account than those of {1}, which {2} names";
        "请去掉不需要的一项。", "{0}：与 {2} 指定的 {1} 中的账号不是同一个";
    }
    UNKNOWN_ACCOUNT<3> {
        "Correct the name.", "there is no account {0} in {1}; {2}";
        "请更正账号名。", "{1} 中没有账号 {0}；{2}";
    }
    NO_PLACE<0> {
        "Give --dir.", "cannot tell where documents are published: HOME is not set";
        "请给出 --dir。", "未设置 HOME，无法确定 token 文件的目录";
    }
    DIR_UNUSED<1> {
        "Leave --dir out.", "--dir has no meaning here: in {0} each account that is meant has a file of its own";
        "请去掉 --dir。", "--dir 在此无效：{0} 中所选账号均有各自的 file";
    }
    NOT_IN_DIR<3> {
        "Unset the variable, or leave out --dir.", "{0} {1} is not in --dir {2}";
        "请取消设置该变量，或去掉 --dir。", "{0} {1} 不在 --dir {2} 中";
    }
    SHARED_DOCUMENT<2> {
        "Give each account a file with another name.", "its document {0} is account {1}'s, or has the same name but for the extension";
        "请为每个账号的 file 指定不同的文件名。", "其 token 文件 {0} 与账号 {1} 的相同，或仅扩展名不同";
    }
    NOT_TOML<1> {
        "Correct the line.", "this is not TOML: {0}";
        "请更正此行。", "不是合法的 TOML：{0}";
    }
    UNEXPECTED<2> {
        "Write {0}.", "found {1}";
        "请填写{0}。", "实为{1}";
    }
    UNKNOWN_KEY<1> {
        "Correct it, or leave it out.", "there is no such key; there are {0}";
        "请更正或去掉。", "没有这个键；可用的有 {0}";
    }
    MISSPELT_KEY<1> {
        "Correct the name.", "there is no such key; is it {0}?";
        "请更正键名。", "没有这个键，是否为 {0}？";
    }
    UNKNOWN_API<1> {
        "Write one of {0}.", "there is no such api";
        "请从 {0} 中选择。", "没有这种 api";
    }
    SAME_ACCOUNT<1> {
        "Leave out one of them.", "the same appid and api as account {0}";
        "请去掉其中一个。", "appid 和 api 与账号 {0} 相同";
    }
    SAME_APP<1> {
        "Leave out one of them.", "the same corp and secret_file as account {0}";
        "请去掉其中一个。", "企业和 secret_file 与账号 {0} 相同";
    }
    ALSO_OWN<2> {
        "Give it another name.", "its key {0} of [redis] also begins with {1} as the keys of wxtoken itself do";
        "请换一个名称。", "[redis] also 的键 {0} 以 {1} 开头，与 wxtoken 自己的键冲突";
    }
    ALSO_NEEDS_APPID<1> {
        "Give this account its appid.", "the key {0} of [redis] also has the AppID in it";
        "请为该账号写明 appid。", "[redis] also 的键 {0} 含有 AppID";
    }
    ALSO_TWICE<1> {
        "Leave out one of them.", "its key {0} of [redis] also is there twice";
        "请去掉其中一个。", "[redis] also 的键 {0} 出现了两次";
    }
    ALSO_SHARED<2> {
        "Put {account} into it.", "its key {0} of [redis] also is that of account {1}, too";
        "请在其中加入 {account}。", "[redis] also 的键 {0} 也属于账号 {1}";
    }
    GOES_WITH<1> {
        "Leave it out, or give {0}.", "it goes with {0}, the command that it is about";
        "请去掉该项，或写上 {0}。", "须与命令 {0} 一起使用";
    }
    KEY_NOT_REMOVED<2> {
        "Remove {1}, then run this again.", "{0} is written in a way that is not changed by a program";
        "请手动删除 {1}，然后重新运行。", "{0} 的写法无法由程序修改";
    }
    KEYS_NOT_SET<3> {
        "Make it say in [{1}]: {2}. Then run this again.", "{0} is written in a way that is not changed by a program";
        "请手动在 [{1}] 中写入：{2}，然后重新运行。", "{0} 的写法无法由程序修改";
    }
    CHANGED_MEANWHILE<1> {
        "Run this again.", "{0} was changed meanwhile";
        "请重新运行。", "{0} 在此期间被修改";
    }
    NOT_UTF8<0> {
        "Save the file as UTF-8.", "this is not UTF-8";
        "请将文件保存为 UTF-8。", "不是 UTF-8";
    }
}
