use super::super::conformance::cluster::{Cluster as Server, post};
use super::super::conformance::{Fixture, InDirectory, InEtcd, KEY, Other, count, number, secret, soon};
use super::super::{Address, Store, open};
use super::*;
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;

fn far() -> Instant {
    soon(30_000)
}

fn connect(address: &str, ms: u64) -> Result<Arc<dyn Store>> {
    open(address, KEY, &secret(), soon(ms))
}

/// Ends the traffic of a test that fails, too.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Counts with as many threads until told to stop; answers how often, and the longest time that one took.
fn traffic(clients: &[Arc<dyn Store>], stop: &AtomicBool) -> (u64, Duration) {
    thread::scope(|scope| {
        let counters: Vec<_> = clients
            .iter()
            .map(|s| {
                scope.spawn(move || {
                    let (mut counted, mut longest) = (0, Duration::ZERO);
                    while !stop.load(Ordering::Relaxed) {
                        let begin = Instant::now();
                        count(&**s, b"n", 8);
                        longest = longest.max(begin.elapsed());
                        counted += 1;
                    }
                    (counted, longest)
                })
            })
            .collect();
        counters
            .into_iter()
            .map(|c| c.join().unwrap())
            .fold((0, Duration::ZERO), |(n, l), (m, k)| (n + m, l.max(k)))
    })
}

#[test]
fn a_killed_leader_costs_time_and_no_change() {
    let Some(cluster) = Server::start(3, &[]) else { return };
    let address = cluster.address();
    let clients: Vec<_> = (0..4).map(|_| connect(&address, 20_000).unwrap()).collect();
    let watcher = connect(&address, 20_000).unwrap();
    let after = watcher.list(b"last", far()).unwrap().revision;
    let stop = AtomicBool::new(false);
    let (counted, longest) = thread::scope(|scope| {
        let traffic = scope.spawn(|| traffic(&clients, &stop));
        let running = Stop(&stop);
        let watch = scope.spawn(|| watcher.watch(b"last", after, far()).unwrap());
        thread::sleep(Duration::from_millis(700));
        cluster.kill(cluster.leader());
        thread::sleep(Duration::from_secs(4));
        drop(running);
        let done = traffic.join().unwrap();
        clients[0].set(b"last", b"1", None, far()).unwrap();
        assert_eq!(watch.join().unwrap().entries.len(), 1);
        done
    });
    assert_eq!(number(watcher.get(b"n", far()).unwrap().as_deref()), counted);
    println!("{counted} counted; the longest call took {longest:?}");
    assert!(longest < Duration::from_secs(15), "{longest:?}");

    // Without a majority nothing is answered, and the deadline holds.
    cluster.kill(cluster.leader());
    for call in [
        &(|deadline| watcher.get(b"n", deadline).map(drop)) as &dyn Fn(Instant) -> Result<()>,
        &|deadline| watcher.set(b"n", b"", None, deadline),
        &|deadline| watcher.watch(b"w", 0, deadline).map(drop),
    ] {
        let begin = Instant::now();
        let e = call(soon(700)).unwrap_err();
        assert_eq!(e.code, Code::Timeout, "{e}");
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    }
}

/// Stands between a client and a member, and loses some of the answers.
struct Lossy {
    port: u16,
    /// Of so many answers one is lost; 0: none is.
    one_in: Arc<AtomicU32>,
    lost: Arc<AtomicU32>,
}

impl Lossy {
    fn start(to: u16) -> Lossy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (one_in, lost) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (every, losses) = (one_in.clone(), lost.clone());
        thread::spawn(move || {
            let answers = Arc::new(AtomicU32::new(0));
            for client in listener.incoming().flatten() {
                let Ok(member) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let (from, mut there) = (client.try_clone().unwrap(), member.try_clone().unwrap());
                thread::spawn(move || {
                    let mut from = from;
                    let _ = std::io::copy(&mut from, &mut there);
                    let _ = there.shutdown(Shutdown::Both);
                });
                let (every, losses, answers) = (every.clone(), losses.clone(), answers.clone());
                thread::spawn(move || {
                    let (mut member, mut client, mut bytes) = (member, client, [0; 65536]);
                    while let Ok(n @ 1..) = member.read(&mut bytes) {
                        let one_in = every.load(Ordering::Relaxed);
                        if one_in > 0 && answers.fetch_add(1, Ordering::Relaxed) % one_in == one_in - 1 {
                            losses.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        if client.write_all(&bytes[..n]).is_err() {
                            break;
                        }
                    }
                    let _ = client.shutdown(Shutdown::Both);
                    let _ = member.shutdown(Shutdown::Both);
                });
            }
        });
        Lossy { port, one_in, lost }
    }
}

#[test]
fn a_change_whose_answer_got_lost_is_made_once() {
    let Some(f) = InEtcd::new() else { return };
    let lossy = Lossy::start(f.server.ports[0]);
    let address = f.address().unwrap().replace(&f.server.ports[0].to_string(), &lossy.port.to_string());
    let clients: Vec<_> = (0..3).map(|_| connect(&address, 20_000).unwrap()).collect();
    lossy.one_in.store(3, Ordering::Relaxed);
    let stop = AtomicBool::new(false);
    let (counted, _) = thread::scope(|scope| {
        let traffic = scope.spawn(|| traffic(&clients, &stop));
        let running = Stop(&stop);
        // A swap and its way back, so that doing either twice would show in the other.
        let s = connect(&address, 20_000).unwrap();
        for i in 0..40u32 {
            assert!(s.compare_and_set(b"flip", None, Some(b"x"), None, far()).unwrap().swapped, "{i}");
            assert!(!s.compare_and_set(b"flip", None, Some(b"y"), None, far()).unwrap().swapped, "{i}");
            assert!(s.compare_and_set(b"flip", Some(b"x"), None, None, far()).unwrap().swapped, "{i}");
            s.set(b"d/1", b"", None, far()).unwrap();
            assert_eq!(s.delete_prefix(b"d/", far()).unwrap(), 1);
            let lease = s.lease(Duration::from_secs(60), far()).unwrap();
            s.set(b"leased", b"", Some(lease), far()).unwrap();
            s.revoke(lease, far()).unwrap();
            assert_eq!(s.get(b"leased", far()).unwrap(), None);
        }
        drop(running);
        traffic.join().unwrap()
    });
    let lost = lossy.lost.load(Ordering::Relaxed);
    println!("{counted} counted, {lost} answers lost");
    assert!(lost > 100);
    lossy.one_in.store(0, Ordering::Relaxed);
    assert_eq!(number(f.client().get(b"n", far()).unwrap().as_deref()), counted);
}

#[test]
fn guards_that_somebody_removes_are_made_anew() {
    let Some(f) = InEtcd::new() else { return };
    let s = f.client();
    s.set(b"k", b"1", None, far()).unwrap();
    let port = f.server.ports[0];
    // All guards of this client.
    let all = message::range(Keys::Under(
        format!("{}/guards/", f.address().unwrap().rsplit('/').next().unwrap()).as_bytes(),
    ));
    let answer = post(port, "/v3/kv/deleterange", &all.to_string()).unwrap();
    assert!(answer.contains("deleted"), "{answer}");
    s.set(b"k", b"2", None, far()).unwrap();
    assert_eq!(s.get(b"k", far()).unwrap().as_deref(), Some(&b"2"[..]));
    drop(s);
    let answer = post(port, "/v3/kv/range", &all.to_string()).unwrap();
    assert!(!answer.contains("kvs"), "a client that ends leaves no guards: {answer}");
}

/// Something that accepts connections, and says this to whatever it is asked; nothing if that is empty.
fn impostor(says: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut open = Vec::new();
        for mut s in listener.incoming().flatten() {
            if says.is_empty() {
                open.push(s);
                continue;
            }
            let _ = s.read(&mut [0; 4096]);
            let _ = s.write_all(says.as_bytes());
        }
    });
    port
}

#[test]
fn what_is_no_etcd_is_an_error_that_names_it() {
    let ok = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
    for (says, why) in [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", "status 404"),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<html>", "no JSON"),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"error\":\"odd\",\"code\":12}", "odd"),
        ("SSH-2.0-OpenSSH\r\n", "no answer in time"),
        ("", "no answer in time"),
    ] {
        let port = impostor(says);
        let begin = Instant::now();
        let e = connect(&format!("etcd://127.0.0.1:{port}"), 400).err().unwrap();
        assert!(e.text.contains(why) && e.text.contains(&port.to_string()), "{e}");
        assert!(begin.elapsed() < Duration::from_secs(3));
    }
    // It passes for etcd until it is asked for something.
    let all =
        ["{}", "[]", "{\"header\":{}}", "{\"header\":{\"revision\":\"1\"},\"kvs\":[{\"key\":\"eA==\"}]}"];
    for says in all {
        let port = impostor(Box::leak(format!("{ok}{says}").into_boxed_str()));
        let s = connect(&format!("etcd://127.0.0.1:{port}"), 5000).unwrap();
        let e = s.list(b"k", soon(2000)).unwrap_err();
        assert!(e.code == Code::System && e.text.contains("answered"), "{says}: {e}");
        assert!(s.set(b"k", b"", None, soon(500)).is_err());
        assert!(s.watch(b"k", 0, soon(500)).is_err());
        assert!(s.lease(Duration::from_secs(1), soon(500)).is_err());
    }
}

#[test]
fn members_that_are_dead_or_silent_are_passed_over() {
    let Some(f) = InEtcd::new() else { return };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for bad in [closed, impostor("")] {
        let address = f.address().unwrap().replace("etcd://", &format!("etcd://127.0.0.1:{bad},"));
        let begin = Instant::now();
        let s = connect(&address, 20_000).unwrap();
        s.set(b"k", b"1", None, far()).unwrap();
        assert_eq!(s.watch(b"k", 0, far()).unwrap().entries.len(), 1);
        assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    }
    let begin = Instant::now();
    let e = connect(&format!("etcd://127.0.0.1:{closed}"), 300).err().unwrap();
    assert_eq!(e.code, Code::Timeout, "{e}");
    assert!(begin.elapsed() < Duration::from_secs(2));
}

#[test]
fn users_are_asked_for_their_passwords() {
    let Some(server) = Server::start(1, &[]) else { return };
    let port = server.ports[0];
    for (path, body) in [
        ("/v3/auth/user/add", r#"{"name":"root","password":"p@ss"}"#),
        ("/v3/auth/role/add", r#"{"name":"root"}"#),
        ("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#),
        ("/v3/auth/user/add", r#"{"name":"nobody","password":"p"}"#),
        ("/v3/auth/enable", "{}"),
    ] {
        let answer = post(port, path, body).unwrap();
        assert!(answer.contains("header") || answer.contains("already exists"), "{path}: {answer}");
    }
    for user in ["", "root:wrong@", "stranger:p@", "nobody:p@"] {
        let begin = Instant::now();
        let e = connect(&format!("etcd://{user}127.0.0.1:{port}"), 10_000).err().unwrap();
        assert_eq!(e.code, Code::Unauthorized, "{user}: {e}");
        assert!(!e.text.contains("wrong") && begin.elapsed() < Duration::from_secs(5), "{e}");
    }
    let Address::Etcd(cluster) = Address::parse(&format!("etcd://root:p%40ss@127.0.0.1:{port}")).unwrap()
    else {
        panic!("not etcd")
    };
    let s = Etcd::connect(cluster, far()).unwrap();
    let lease = Store::lease(&s, Duration::from_secs(10), far()).unwrap();
    Store::set(&s, b"k", b"1", Some(lease), far()).unwrap();
    // As if the cluster had forgotten it.
    s.members.spoil_token();
    let after = Store::list(&s, b"k", far()).unwrap().revision;
    s.members.spoil_token();
    assert_eq!(Store::watch(&s, b"k", after, soon(100)).unwrap_err().code, Code::Timeout);
    s.members.spoil_token();
    assert!(Store::compare_and_set(&s, b"k", Some(b"1"), None, None, far()).unwrap().swapped);
}

/// Runs openssl; `None` where there is none.
fn openssl(arguments: &str, folder: &std::path::Path) -> Option<()> {
    let mut c = Command::new("openssl");
    let ran =
        c.args(arguments.split(' ')).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null()).status();
    ran.ok()?.success().then_some(())
}

#[test]
fn certificates_are_asked_for_and_shown() {
    let directory = InDirectory::new();
    let folder = directory.0.clone();
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(
        folder.join("names"),
        "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n",
    )
    .unwrap();
    let authority = |name: &str| {
        openssl(
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.pem -subj /CN={name} -days 2"
            ),
            &folder,
        )
    };
    let made = authority("ca").and(authority("other")).and_then(|()| {
        openssl("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout own.key -out own.csr -subj /CN=own", &folder)?;
        openssl("x509 -req -in own.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out own.pem -days 2 -extfile names", &folder)
    });
    if made.is_none() {
        println!("skipped: openssl is not installed (Debian: openssl)");
        return;
    }
    let file = |name: &str| folder.join(name).to_str().unwrap().to_string();
    let options = [
        "--cert-file",
        &file("own.pem"),
        "--key-file",
        &file("own.key"),
        "--client-cert-auth",
        "--trusted-ca-file",
        &file("ca.pem"),
    ];
    let Some(server) = Server::start(1, &options.map(str::to_string)) else { return };
    let (ca, other, own, key) = (file("ca.pem"), file("other.pem"), file("own.pem"), file("own.key"));
    let run = |env: &[(&str, &str)]| {
        let mut p = Other::start_with(&server.address(), "try", env);
        p.hear().unwrap()
    };
    let shown = [("MW_ETCD_CERT", &*own), ("MW_ETCD_KEY", &*key)];
    let said = run(&[("MW_ETCD_CACERT", &ca), shown[0], shown[1]]);
    assert_eq!(said, "works");
    for (env, why) in [
        (vec![("MW_ETCD_CACERT", &*ca)], "ertificate"),
        (vec![("MW_ETCD_CACERT", &*other), shown[0], shown[1]], "ertificate"),
        (vec![shown[0], shown[1]], "ertificate"),
        (vec![("MW_ETCD_CACERT", &*key)], "MW_ETCD_CACERT"),
        (vec![("MW_ETCD_CACERT", "/does/not/exist")], "MW_ETCD_CACERT"),
        (vec![("MW_ETCD_CACERT", &*ca), shown[0]], "MW_ETCD_KEY"),
        (vec![("MW_ETCD_CACERT", &*ca), ("MW_ETCD_CERT", &*own), ("MW_ETCD_KEY", &*own)], "MW_ETCD_KEY"),
    ] {
        let said = run(&env);
        println!("{said}");
        assert!(said.contains(why), "{env:?}: {said}");
    }
}
