use super::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Done),
        Just(Outcome::Swapped),
        any::<u64>().prop_map(Outcome::Deleted),
        any::<u64>().prop_map(|n| Outcome::Lease(LeaseId(n))),
    ]
}

fn lease() -> impl Strategy<Value = Option<LeaseId>> {
    option::of((1..u64::MAX).prop_map(LeaseId))
}

fn record() -> impl Strategy<Value = Record> {
    let n = any::<u64>;
    prop_oneof![
        (n(), n(), n(), n(), (bytes(), bytes(), lease())).prop_map(
            |(client, id, settled, revision, (key, value, lease))| {
                let request = Request::Set { key, value, lease };
                Record::Asked { client, id, settled, revision, request }
            }
        ),
        (n(), any::<bool>()).prop_map(|(client, forget)| Record::Left { client, forget }),
        n().prop_map(|n| Record::Ended { lease: LeaseId(n) }),
        n().prop_map(|revision| Record::Began { revision }),
        (n(), n(), n()).prop_map(|(revision, forgotten, last_lease)| Record::Counters {
            revision,
            forgotten,
            last_lease
        }),
        (n(), n(), vec((n(), outcome()), 0..6)).prop_map(|(client, settled, outcomes)| Record::Session {
            client,
            settled,
            outcomes
        }),
        (n(), n(), n()).prop_map(|(lease, client, ns)| Record::Lease {
            lease: LeaseId(lease),
            client,
            ttl: Duration::from_nanos(ns)
        }),
        (bytes(), bytes(), n(), lease()).prop_map(|(key, value, modified, lease)| Record::Entry {
            key,
            value,
            modified,
            lease
        }),
        (bytes(), n()).prop_map(|(key, revision)| Record::Deleted { key, revision }),
        n().prop_map(|records| Record::Complete { records }),
    ]
}

fn read(bytes: &[u8]) -> (Vec<(KeyId, Record)>, Step) {
    let mut records = Records::new(bytes);
    let mut out = Vec::new();
    loop {
        match records.step() {
            Step::Record(store, record) => out.push((store, record)),
            end => return (out, end),
        }
    }
}

proptest! {
    /// Whatever a write has left of its bytes, what was whole is read, and nothing else.
    #[test]
    fn records_survive_up_to_where_they_are_cut(
        all in vec((any::<[u8; 16]>().prop_map(KeyId), record()), 0..8),
        cut in any::<proptest::sample::Index>(),
        zeros in 0..20usize,
    ) {
        let mut file = Vec::new();
        let mut ends = vec![0];
        for (store, r) in &all {
            encode(*store, r, &mut file);
            ends.push(file.len());
        }
        prop_assert_eq!(read(&file), (all.clone(), Step::End));
        let cut = cut.index(file.len() + 1);
        let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
        let end = if ends.contains(&cut) { Step::End } else { Step::Torn };
        prop_assert_eq!(read(&file[..cut]), (all[..whole].to_vec(), end));
        // Room that was made for what was never written.
        let mut padded = file[..ends[whole]].to_vec();
        padded.resize(padded.len() + zeros, 0);
        let end = if zeros == 0 { Step::End } else { Step::Torn };
        prop_assert_eq!(read(&padded), (all[..whole].to_vec(), end));
    }

    #[test]
    fn a_flipped_bit_ends_the_log_before_its_record(
        all in vec(record(), 1..6),
        at in any::<proptest::sample::Index>(),
        bit in 0..8u32,
    ) {
        let mut file = Vec::new();
        let mut ends = Vec::new();
        for r in &all {
            encode(KeyId([7; 16]), r, &mut file);
            ends.push(file.len());
        }
        let at = at.index(file.len());
        file[at] ^= 1 << bit;
        let whole = ends.iter().filter(|end| **end <= at).count();
        let (got, end) = read(&file);
        prop_assert_eq!(got.len(), whole);
        prop_assert!(matches!(end, Step::Broken(_) | Step::Torn));
        prop_assert!(got.iter().map(|(_, r)| r).eq(&all[..whole]));
    }

    #[test]
    fn garbage_is_an_end_and_no_panic(garbage in vec(any::<u8>(), 0..300)) {
        let _ = read(&garbage);
        let _ = decode(&garbage);
        let _ = Header::decode(&garbage);
    }
}

#[test]
fn headers_survive_and_others_are_refused() {
    let header =
        Header { kind: Kind::Log, synced: true, generation: 3, incarnation: u64::MAX, boot: [b'x'; BOOT] };
    let mut file = header.encode().to_vec();
    file.extend(b"rest");
    assert_eq!(Header::decode(&file).unwrap(), Some((header, &b"rest"[..])));
    for cut in 0..HEADER {
        assert_eq!(Header::decode(&file[..cut]).unwrap(), None, "{cut}");
    }
    let refused = |at: usize| {
        let mut other = file.clone();
        other[at] ^= 4;
        Header::decode(&other).unwrap_err().0
    };
    assert!(refused(0).contains("no file of a store"));
    assert!(refused(8).contains("another version"));
    assert!(refused(20).contains("checksum"));
}

#[test]
fn the_largest_records_fit() {
    let request = Request::CompareAndSet {
        key: vec![1; wire::MAX_KEY],
        expected: Some(vec![2; wire::MAX_VALUE]),
        new: Some(vec![3; wire::MAX_VALUE]),
        lease: None,
    };
    let outcomes = (0..super::super::state::OUTCOMES as u64).map(|n| (n, Outcome::Deleted(n))).collect();
    for record in [
        Record::Asked { client: 1, id: 2, settled: 3, revision: 4, request },
        Record::Session { client: 1, settled: 2, outcomes },
    ] {
        let mut file = Vec::new();
        encode(KeyId([1; 16]), &record, &mut file);
        assert_eq!(read(&file), (vec![(KeyId([1; 16]), record)], Step::End));
    }
}
