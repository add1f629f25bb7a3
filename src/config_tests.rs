//! Tests of the settings, on environments of their own.

use super::*;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

fn with(env: &[(&str, &str)], over: &Overrides) -> Result<Config> {
    Config::resolve(over, &lookup(env))
}

fn lookup(env: &[(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
    |name| env.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v))
}

fn refusal<T: std::fmt::Debug>(result: Result<T>) -> String {
    let err = result.unwrap_err();
    assert_eq!(err.code, crate::error::Code::InvalidArgument);
    err.text.to_string()
}

#[test]
fn nothing_set_gives_the_defaults() {
    let config = with(&[("MW_STORE", ""), ("MW_SECRET", "")], &Overrides::default()).unwrap();
    assert_eq!((config.store, config.ifname, config.secret), (None, None, None));
    assert!(!config.insecure);
    assert_eq!(config.transport, TransportChoice::Auto);
    assert_eq!(config.timeout, Duration::from_secs(600));
    assert_eq!(config.join_timeout, Duration::from_secs(60));
    assert_eq!(config.heartbeat_interval, Duration::from_millis(200));
    assert_eq!(config.heartbeat_timeout, Duration::from_secs(1));
}

#[test]
fn the_caller_wins_over_the_environment() {
    let env = [
        ("MW_STORE", "tcp://a:1"),
        ("MW_TRANSPORT", "shm"),
        ("MW_TIMEOUT_MS", "5"),
        ("MW_JOIN_TIMEOUT_MS", "7"),
        ("MW_SECRET", "0123456789abcdef"),
        ("MW_INSECURE", "1"),
    ];
    let over = Overrides {
        store: Some("tcp://b:2".into()),
        transport: Some("tcp".into()),
        timeout_ms: Some(6),
        ..Overrides::default()
    };
    let config = with(&env, &over).unwrap();
    assert_eq!(config.store.as_deref(), Some("tcp://b:2"));
    assert_eq!(config.transport, TransportChoice::Tcp);
    assert_eq!((config.timeout, config.join_timeout), (Duration::from_millis(6), Duration::from_millis(7)));
    assert_eq!(config.secret, Some(Secret(b"0123456789abcdef".to_vec())));
    assert!(config.insecure);
}

#[test]
fn a_certificate_and_its_key_come_together() {
    let read = |env: &[(&str, &str)]| certificates(&lookup(env));
    let none = Certificates { authorities: None, own: None };
    assert_eq!(read(&[("MW_ETCD_CERT", "")]).unwrap(), none);
    let all = [("MW_ETCD_CACERT", "/a"), ("MW_ETCD_CERT", "/c"), ("MW_ETCD_KEY", "/k")];
    let expected = Certificates { authorities: Some("/a".into()), own: Some(("/c".into(), "/k".into())) };
    assert_eq!(read(&all).unwrap(), expected);
    assert_eq!(refusal(read(&all[..2])), "MW_ETCD_KEY: not set, but MW_ETCD_CERT is");
    assert_eq!(refusal(read(&all[2..])), "MW_ETCD_CERT: not set, but MW_ETCD_KEY is");
}

#[test]
fn a_wrong_value_is_named() {
    let none = Overrides::default();
    for (name, value, expected) in [
        ("MW_TIMEOUT_MS", "abc", "MW_TIMEOUT_MS: 'abc' is not a number of milliseconds"),
        ("MW_TIMEOUT_MS", "99999999999", "MW_TIMEOUT_MS: '99999999999' is not a number of milliseconds"),
        ("MW_JOIN_TIMEOUT_MS", "0", "MW_JOIN_TIMEOUT_MS: 0 ms is not greater than 0"),
        ("MW_TRANSPORT", "ib", "MW_TRANSPORT: 'ib' is none of 'auto', 'shm', 'tcp'"),
        ("MW_INSECURE", "yes", "MW_INSECURE: 'yes' is neither '0' nor '1'"),
        ("MW_SECRET", "short", "MW_SECRET: 5 bytes are too few, a secret has 16"),
        (
            "MW_HEARTBEAT_TIMEOUT_MS",
            "399",
            "MW_HEARTBEAT_TIMEOUT_MS: 399 ms is less than two heartbeat intervals of 200 ms",
        ),
    ] {
        assert_eq!(refusal(with(&[(name, value)], &none)), expected);
    }
    let over = Overrides { timeout_ms: Some(-3), ..Overrides::default() };
    assert_eq!(refusal(with(&[], &over)), "config.timeoutMs: -3 ms is not greater than 0");
    let over = Overrides { secret: Some(Secret(vec![1; 15])), ..Overrides::default() };
    assert_eq!(refusal(with(&[], &over)), "config.secret: 15 bytes are too few, a secret has 16");
    let not_text = |name: &str| (name == "MW_STORE").then(|| OsStr::from_bytes(b"\xff").to_owned());
    assert_eq!(refusal(Config::resolve(&none, &not_text)), "MW_STORE: not valid UTF-8");
}

#[test]
fn a_secret_file_is_read_without_its_newline() {
    let none = Overrides::default();
    let path = std::env::temp_dir().join(format!("mw-secret-{}", std::process::id()));
    let file = path.to_str().unwrap();
    std::fs::write(&path, "0123456789abcdef\n").unwrap();
    let config = with(&[("MW_SECRET_FILE", file)], &none);
    let both = with(&[("MW_SECRET_FILE", file), ("MW_SECRET", "0123456789abcdef")], &none);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(config.unwrap().secret, Some(Secret(b"0123456789abcdef".to_vec())));
    assert_eq!(refusal(both), "MW_SECRET_FILE: MW_SECRET is set, too; only one may be");
    assert!(
        refusal(with(&[("MW_SECRET_FILE", file)], &none)).starts_with(&format!("MW_SECRET_FILE: {file}: "))
    );
}

#[test]
fn facilities_are_taken_away_by_name() {
    let parse = |list| Facilities::parse(&lookup(&[("MW_DISABLE", list)]));
    assert_eq!(parse(""), Ok(Facilities::ALL));
    assert_eq!(parse("cma, robust,"), Ok(Facilities { cma: false, robust: false, ..Facilities::ALL }));
    assert_eq!(parse("futex_waitv,memfd").map(|f| (f.futex_waitv, f.memfd)), Ok((false, false)));
    assert_eq!(
        refusal(parse("cma,tcp")),
        "MW_DISABLE: 'tcp' is none of 'futex_waitv', 'robust', 'cma', 'memfd'"
    );
}

#[test]
fn ranks_come_from_the_first_complete_pair() {
    let slurm = [("RANK", "9"), ("SLURM_NTASKS", "4"), ("SLURM_PROCID", "2")];
    assert_eq!(ranks(&lookup(&slurm)), Ok((4, 2)));
    let ours = [("MW_NRANKS", "8"), ("MW_RANK", "7"), ("RANK", "0"), ("WORLD_SIZE", "2")];
    assert_eq!(ranks(&lookup(&ours)), Ok((8, 7)));
    assert_eq!(refusal(ranks(&lookup(&[("MW_RANK", "1")]))), "MW_NRANKS: not set, but MW_RANK is");
    assert_eq!(refusal(ranks(&lookup(&[("MW_NRANKS", "1")]))), "MW_RANK: not set, but MW_NRANKS is");
    assert_eq!(refusal(ranks(&lookup(&[("RANK", "x"), ("WORLD_SIZE", "2")]))), "RANK: 'x' is not a number");
    assert!(refusal(ranks(&lookup(&[]))).starts_with("nranks, rank: "));
}

#[test]
fn debug_levels() {
    let level = |value| level(&lookup(&[("MW_DEBUG", value)]));
    assert_eq!(level(""), Ok(None));
    assert_eq!(level("INFO"), Ok(Some(Level::INFO)));
    assert_eq!(refusal(level("loud")), "MW_DEBUG: 'loud' is none of 'warn', 'info', 'debug', 'trace'");
}

#[test]
fn a_table_is_read_where_it_is_named() {
    use tuning::Topology;
    let path = std::env::temp_dir().join(format!("mw-config-{}.table", std::process::id()));
    let name = path.to_str().unwrap().to_owned();
    let load = || with(&[("MW_TUNING", &name)], &Overrides::default());
    assert_eq!(with(&[("MW_TUNING", "")], &Overrides::default()).unwrap().tuning, None);
    let text = refusal(load());
    assert!(text.starts_with(&format!("MW_TUNING: {name}: No such file")), "{text}");
    std::fs::write(&path, "[network]\nchunk = 4X\n").unwrap();
    assert_eq!(
        refusal(load()),
        format!("MW_TUNING: {name}:2: chunk: '4X' is no size; sizes are written like 0, 40000, 64K, 1M, max")
    );
    std::fs::write(&path, "[network]\nchunk = 4K\n").unwrap();
    let table = load().unwrap().tuning.unwrap();
    assert_eq!(table.choose(Topology::Network, 2).chunk, 4096);
    std::fs::remove_file(&path).unwrap();
}
