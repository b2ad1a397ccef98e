//! Takes connections out of a full pool and puts them back, for `ci/bench` to count what that
//! costs: `pool CONNECTIONS SLICES OPERATIONS`, where an operation is one take and one put under
//! an identity that was not used for long. Prints the nanoseconds of an operation.

#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use std::env;
use std::hint::black_box;
use std::time::Instant;

use allocator_api2::alloc::Global;
use ngx_http_upstream_sliced_keepalive_module::pool::{
    Identity, Limits, Lookup, Pool, Protocol, Put, SliceLimits,
};

const HTTP: Protocol = Protocol { module: 1, handler: 1, location: 0, tls: 0 };

/// Keys as long as host names are.
fn key(slice: u32) -> String {
    format!("h{slice:05}.example.com")
}

/// A server address as long as IPv4's.
fn address(connection: u32) -> [u8; 16] {
    let mut address = [0; 16];
    address[4..8].copy_from_slice(&connection.to_be_bytes());
    address
}

fn put(pool: &mut Pool<Global>, identity: Identity<'_>, lookup: &mut Lookup) {
    let put = black_box(pool.put(|| identity, lookup, u32::MAX));
    assert!(matches!(put, Put::Kept(_)), "a connection was not kept");
}

fn main() -> Result<(), String> {
    // Cargo adds an option for harnesses.
    let args: Vec<u32> = env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let &[connections, slices, operations] = args.as_slice() else {
        return Err("usage: pool CONNECTIONS SLICES OPERATIONS".into());
    };
    let limits = Limits {
        connections,
        address_length: 28,
        attributes_length: 0,
        slices: Some(SliceLimits { slices, key_length: 40 }),
    };
    let mut pool = Pool::new_in(limits, &[7; 24], Global).map_err(|error| error.to_string())?;
    let identities: Vec<_> =
        (0..connections).map(|i| (key(i % slices), address(i / slices))).collect();
    let identity = |i: u32| {
        let (key, address) = &identities[i as usize];
        Identity { key: key.as_bytes(), address, attributes: b"", protocol: HTTP }
    };
    for i in 0..connections {
        put(&mut pool, identity(i), &mut Lookup::default());
    }

    let start = Instant::now();
    for operation in 0..operations {
        // A stride that visits all, and not in the order of memory.
        let i = (u64::from(operation) * 40_503 % u64::from(connections)) as u32;
        let mut lookup = Lookup::default();
        let found = pool.find(&identity(i), &mut lookup);
        let taken = found.is_some_and(|slot| pool.take(black_box(slot)));
        assert!(taken, "a connection was not found");
        put(&mut pool, identity(i), &mut lookup);
    }
    println!("{:.1}", start.elapsed().as_nanos() as f64 / f64::from(operations));
    Ok(())
}
