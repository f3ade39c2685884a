// SPDX-License-Identifier: MIT OR Apache-2.0
//! What bench_virtq compares with: virtio-queue serving the same chains of the same ring.
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::mmap::MmapRegion;
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap, GuestRegionMmap};

pub struct Peer {
    mem: GuestMemoryMmap,
    queue: Queue,
    done: [(u16, u32); 128],
    taken: usize,
}

fn region(at: *mut u8, size: usize, gpa: u64) -> GuestRegionMmap {
    let raw = unsafe { MmapRegion::build_raw(at, size, 3, 0x22) }.unwrap();
    GuestRegionMmap::new(raw, GuestAddress(gpa)).unwrap()
}

#[no_mangle]
pub extern "C" fn peer_new(
    ram: *mut u8,
    half: usize,
    size: u16,
    desc: u64,
    driver: u64,
    device: u64,
) -> *mut Peer {
    let regions = vec![
        region(ram, half, 0),
        region(unsafe { ram.add(half) }, half, 1 << 32),
    ];
    let mem = GuestMemoryMmap::from_regions(regions).unwrap();
    let mut queue = Queue::new(size).unwrap();
    queue.set_size(size);
    queue
        .try_set_desc_table_address(GuestAddress(desc))
        .unwrap();
    queue
        .try_set_avail_ring_address(GuestAddress(driver))
        .unwrap();
    queue
        .try_set_used_ring_address(GuestAddress(device))
        .unwrap();
    queue.set_event_idx(true);
    queue.set_ready(true);
    if !queue.is_valid(&mem) {
        return std::ptr::null_mut();
    }
    Box::into_raw(Box::new(Peer {
        mem,
        queue,
        done: [(0, 0); 128],
        taken: 0,
    }))
}

/// Takes up to `most` chains, and looks at each of their buffers. Returns how many.
#[no_mangle]
pub extern "C" fn peer_pop(peer: *mut Peer, most: u32) -> u32 {
    let p = unsafe { &mut *peer };
    p.taken = 0;
    let iter = match p.queue.iter(&p.mem) {
        Ok(i) => i,
        Err(_) => return 0,
    };
    for chain in iter.take((most as usize).min(p.done.len())) {
        let head = chain.head_index();
        let mut written = 0u32;
        for desc in chain {
            let s = match p.mem.get_slice(desc.addr(), desc.len() as usize) {
                Ok(s) => s,
                Err(_) => return 0,
            };
            std::hint::black_box(s.ptr_guard_mut().as_ptr());
            if desc.is_write_only() {
                written += desc.len();
            }
        }
        p.done[p.taken] = (head, written);
        p.taken += 1;
    }
    p.taken as u32
}

/// Returns what was taken. Returns how many.
#[no_mangle]
pub extern "C" fn peer_add_used(peer: *mut Peer) -> u32 {
    let p = unsafe { &mut *peer };
    for &(head, written) in &p.done[..p.taken] {
        if p.queue.add_used(&p.mem, head, written).is_err() {
            return 0;
        }
    }
    p.taken as u32
}
