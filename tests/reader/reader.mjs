#!/usr/bin/env node
// An independent reader of the vault's format. It is written from docs/FORMAT.md alone and shares no code with the product:
// what it accepts and rejects is what the document says, so that the document can be trusted to be enough.
//
//   node reader.mjs VAULT KEYFILE     prints one JSON object: {expect, root, closed, tree} or {expect, detail}
//   node reader.mjs --vectors DIR     reads every vault of DIR/vectors.json and compares; exit 1 if one differs
//
// It opens machine slots (a key file of 32 bytes); passphrase slots are validated and left alone. It reads as a checker does:
// each block that counts is authenticated, and compared with its table where a checkpoint has one.
// Names and targets are bytes; they are printed as UTF-8, and bytes that are not UTF-8 as \xNN.
// Standard library only.

import { createCipheriv, createDecipheriv, createHash, createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const HEADER = 4096, BLOCK = 32768, PREFIX = 32, STREAM = 32696, MAX_BLOCKS = 2047;
const NONE = 0xffffffff; // `first` of a block in which no record starts
const HEAD = 5, COMMIT_SIZE = HEAD + 64, MAX_PAYLOAD = 131072, MAX_DATA = 16 + 1048576;
const ZERO32 = Buffer.alloc(32), MAX_INODE = (1n << 63n) - 1n;
const PAD = 1, COMMIT = 2, INODE = 3, TARGET = 4, LINK = 5, UNLINK = 6, SETXATTR = 7, REMOVEXATTR = 8, DATA = 9, CLEAR = 10,
  FREE = 11, PIECE = 12, RENAME = 13, STATE = 32, EXTENT = 33, SEGMENT = 34, EPOCH = 35;
const S_IFMT = 0o170000, S_IFDIR = 0o040000, S_IFREG = 0o100000, S_IFLNK = 0o120000;
const FILE_TYPES = new Set([S_IFDIR, S_IFREG, S_IFLNK, 0o010000, 0o020000, 0o060000, 0o140000]);

// ---- Failures ------------------------------------------------------------------------------------------------------------

class Reject extends Error {
  constructor(expect, detail) { super(detail); this.expect = expect; }
}

function check(holds, detail) {
  if (!holds) throw new Reject('integrity', detail);
}

// Absent is an answer; any other error of reading is not, and is thrown as it is.
function unlessAbsent(read) {
  try {
    return read();
  } catch (e) {
    if (e.code === 'ENOENT' || e.code === 'ENOTDIR') return null;
    throw e;
  }
}

// ---- Cryptography --------------------------------------------------------------------------------------------------------

const sha256 = (...parts) => parts.reduce((h, p) => h.update(p), createHash('sha256')).digest();
const hmac = (key, message) => createHmac('sha256', key).update(message).digest();
const hkdf = (ikm, salt, info) => Buffer.from(hkdfSync('sha256', ikm, salt, info, 32));

// The plaintext, or null where the tag does not fit.
function openGCM(key, nonce, sealed, associated) {
  const d = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: 16 });
  d.setAAD(associated);
  d.setAuthTag(sealed.subarray(sealed.length - 16));
  const plain = d.update(sealed.subarray(0, sealed.length - 16));
  try {
    d.final();
  } catch {
    return null;
  }
  return plain;
}

function aesBlocks(key, blocks) {
  const c = createCipheriv('aes-256-ecb', key, null).setAutoPadding(false);
  return Buffer.concat([c.update(blocks), c.final()]);
}

// XAES-256-GCM (C2SP): a key per nonce from CMAC of two one-block messages, then AES-256-GCM with the nonce's other half.
function xaesSubkey(key, l) {
  const k1 = Buffer.alloc(16);
  for (let i = 0; i < 16; i++) k1[i] = (l[i] << 1) | (i < 15 ? l[i + 1] >> 7 : 0);
  if (l[0] & 0x80) k1[15] ^= 0x87;
  return k1;
}

class XAES {
  constructor(key) {
    this.key = key;
    this.k1 = xaesSubkey(key, aesBlocks(key, Buffer.alloc(16)));
  }

  // unit: nonce ‖ ciphertext ‖ tag
  open(unit, associated) {
    const messages = Buffer.alloc(32);
    for (const i of [0, 1]) {
      messages.set([0, i + 1, 0x58, 0], 16 * i);
      messages.set(unit.subarray(0, 12), 16 * i + 4);
      for (let j = 0; j < 16; j++) messages[16 * i + j] ^= this.k1[j];
    }
    return openGCM(aesBlocks(this.key, messages), unit.subarray(12, 24), unit.subarray(24), associated);
  }
}

// ---- Fields --------------------------------------------------------------------------------------------------------------

function u32(n) { const b = Buffer.alloc(4); b.writeUInt32LE(n); return b; }
function u64(n) { const b = Buffer.alloc(8); b.writeBigUInt64LE(n); return b; }

class Fields {
  constructor(bytes, what) { this.bytes = bytes; this.what = what; this.at = 0; }
  take(n) {
    check(this.at + n <= this.bytes.length, `${this.what}: too short`);
    this.at += n;
    return this.bytes.subarray(this.at - n, this.at);
  }
  u8() { return this.take(1)[0]; }
  u16() { return this.take(2).readUInt16LE(); }
  u32() { return this.take(4).readUInt32LE(); }
  u64() { return this.take(8).readBigUInt64LE(); }
  i64() { return this.take(8).readBigInt64LE(); }
  rest() { return this.take(this.bytes.length - this.at); }
  zeros(n) { check(this.take(n).every((b) => b === 0), `${this.what}: a reserved place is not zero`); }
  time() {
    const seconds = this.i64(), nanoseconds = this.u32();
    check(nanoseconds < 1e9, `${this.what}: ${nanoseconds} nanoseconds`);
    return { seconds, nanoseconds };
  }
  end() { check(this.at === this.bytes.length, `${this.what}: too long`); }
}

// ---- vault.json ----------------------------------------------------------------------------------------------------------

const canonical = (value) => Buffer.from(JSON.stringify(value, null, 2) + '\n');
const isObject = (v) => typeof v === 'object' && v !== null && !Array.isArray(v);
const between = (n, low, high) => Number.isInteger(n) && n >= low && n <= high;

function notAVault(detail) { throw new Reject('not-a-vault', detail); }

function hex(value, size, what) {
  if (typeof value !== 'string' || value.length !== 2 * size || !/^[0-9a-f]*$/.test(value)) notAVault(`${what} is not ${size} bytes of hex`);
  return value;
}

function parseKDF(type, kdf) {
  if (!isObject(kdf)) notAVault('a slot without a kdf');
  const salt = hex(kdf.salt, 32, 'salt');
  if (type === 'machine') {
    if (kdf.algorithm !== 'hkdf-sha256') notAVault('a kdf that is not known');
    return { algorithm: kdf.algorithm, salt };
  }
  const { algorithm, memory_kib, time, parallelism } = kdf;
  if (algorithm !== 'argon2id') notAVault('a kdf that is not known');
  if (!between(parallelism, 1, 16) || !between(time, 1, 64) || !between(memory_kib, Math.max(8, 8 * parallelism), 4194304) || memory_kib * time > 67108864) {
    notAVault('kdf parameters out of bounds');
  }
  return { algorithm, memory_kib, time, parallelism, salt };
}

function parseSlot(slot) {
  if (!isObject(slot) || (slot.type !== 'machine' && slot.type !== 'passphrase')) notAVault('a slot of a type that is not known');
  return {
    id: hex(slot.id, 16, 'slot id'),
    type: slot.type,
    kdf: parseKDF(slot.type, slot.kdf),
    commitment: hex(slot.commitment, 32, 'commitment'),
    wrapped_key: hex(slot.wrapped_key, 48, 'wrapped_key'),
  };
}

function parseHeader(bytes) {
  if (bytes.length > 65536) notAVault('vault.json is too long');
  let given;
  try {
    given = JSON.parse(bytes.toString('utf8'));
  } catch {
    notAVault('vault.json is no JSON');
  }
  if (!isObject(given) || given.format !== 'encfsrun vault') notAVault('another format');
  if (!Number.isInteger(given.version) || given.version < 1) notAVault('a version below 1, or none');
  if (given.version > 1) throw new Reject('too-new', `version ${given.version}`);
  if (!between(given.generation, 1, Number.MAX_SAFE_INTEGER)) notAVault('a generation that is no number');
  if (!Array.isArray(given.slots) || given.slots.length < 1 || given.slots.length > 8) notAVault('not 1 to 8 slots');
  const header = {
    format: given.format,
    version: given.version,
    vault_id: hex(given.vault_id, 16, 'vault_id'),
    generation: given.generation,
    slots: given.slots.map(parseSlot),
    mac: hex(given.mac, 32, 'mac'),
  };
  if (new Set(header.slots.map((s) => s.id)).size !== header.slots.length) notAVault('two slots with one id');
  if (!canonical(header).equals(bytes)) notAVault('vault.json is not in canonical form');
  return header;
}

// The master key; null where the key file is not the slot's; 'damaged' where it is, and the slot does not open.
function openSlot(slot, vaultId, keyFile) {
  if (slot.type !== 'machine' || keyFile.length !== 32) return null;
  const salt = Buffer.from(slot.kdf.salt, 'hex');
  const commitment = hkdf(keyFile, salt, 'encfsrun v1 slot commitment');
  if (!timingSafeEqual(commitment, Buffer.from(slot.commitment, 'hex'))) return null;
  const context = Buffer.concat([Buffer.from('encfsrun v1 slot\0'), vaultId, Buffer.from(slot.id, 'hex'), Buffer.from([2]), Buffer.alloc(12), salt]);
  const key = hkdf(keyFile, salt, 'encfsrun v1 slot wrapping key');
  return openGCM(key, Buffer.alloc(12), Buffer.from(slot.wrapped_key, 'hex'), context) ?? 'damaged';
}

function unlock(header, keyFile) {
  const vaultId = Buffer.from(header.vault_id, 'hex');
  let failure = 'wrong-key';
  for (const slot of header.slots) {
    const master = openSlot(slot, vaultId, keyFile);
    if (master === null) continue;
    failure = 'integrity';
    if (master === 'damaged') continue;
    const mac = hmac(hkdf(master, vaultId, 'encfsrun v1 header mac'), canonical({ ...header, mac: '' }));
    if (!timingSafeEqual(mac, Buffer.from(header.mac, 'hex'))) continue;
    return {
      vaultId,
      generation: BigInt(header.generation),
      segmentKey: new XAES(hkdf(master, vaultId, 'encfsrun v1 segment header')),
      blockKey: new XAES(hkdf(master, vaultId, 'encfsrun v1 block data')),
    };
  }
  return failure;
}

function openHeader(folder, keyFile) {
  const parsed = [], failures = [];
  for (const name of ['vault.json', 'vault.json.bak']) {
    const bytes = unlessAbsent(() => fs.readFileSync(path.join(folder, name)));
    if (bytes === null) continue;
    try {
      parsed.push(parseHeader(bytes));
    } catch (e) {
      if (!(e instanceof Reject)) throw e;
      failures.push(e);
    }
  }
  if (parsed.length === 0) throw failures[0] ?? new Reject('not-a-vault', 'there is no vault.json');
  parsed.sort((a, b) => b.generation - a.generation); // stable: vault.json of two equals
  const opened = parsed.map((header) => unlock(header, keyFile));
  const keys = opened.find((o) => typeof o === 'object');
  if (keys) return keys;
  if (opened.includes('integrity')) throw new Reject('integrity', 'the header or its slot is altered');
  throw new Reject('wrong-key', 'no slot opens');
}

// ---- Segments and blocks -------------------------------------------------------------------------------------------------

function readAt(file, offset, size) {
  const fd = fs.openSync(file);
  try {
    const bytes = Buffer.alloc(size);
    let have = 0;
    while (have < size) {
      const n = fs.readSync(fd, bytes, have, size - have, offset + have);
      if (n === 0) break;
      have += n;
    }
    return bytes.subarray(0, have);
  } finally {
    fs.closeSync(fd);
  }
}

function parseSegmentHeader(plain, number) {
  const f = new Fields(plain, `segment ${number}'s header`);
  const h = {
    number: f.u64(), id: f.take(16), session: f.take(16), generation: f.u64(), first: f.u64(), flags: f.u32(), zero: f.zeros(4),
    before: f.u64(), beforeId: f.take(16), beforeEnd: f.u64(), chain: f.take(32),
  };
  f.zeros(3928);
  f.end();
  check(h.number === number, `segment ${number} says that it is ${h.number}`);
  check(h.flags <= 1, `segment ${number}: unknown flags`);
  check(h.before === number - 1n, `segment ${number}: its predecessor is not the one before`);
  check(h.beforeEnd <= BigInt(MAX_BLOCKS), `segment ${number}: its predecessor's end is beyond any segment`);
  if (number === 1n) {
    check(h.first === 0n && h.beforeEnd === 0n && h.beforeId.every((b) => b === 0) && h.chain.equals(ZERO32), 'segment 1 names a predecessor');
    check(h.flags === 0, 'segment 1 begins with a checkpoint, of nothing');
  }
  return h;
}

class Segment {
  // header stays null where it does not authenticate. counts: how many blocks count, known later.
  constructor(keys, file, number) {
    this.keys = keys;
    this.file = file;
    this.number = number;
    this.size = fs.statSync(file).size;
    this.counts = 0;
    this.disk = readAt(file, 0, HEADER);
    const plain = this.disk.length < HEADER ? null : keys.segmentKey.open(this.disk, Buffer.concat([u32(1), keys.vaultId]));
    this.header = plain && parseSegmentHeader(plain, number);
  }

  whole() { return this.size < HEADER ? 0 : Math.floor((this.size - HEADER) / BLOCK); }

  // A block by its place: { number, disk, plain }; plain is null where it does not authenticate.
  read(i) {
    const number = this.header.first + BigInt(i);
    const disk = readAt(this.file, HEADER + i * BLOCK, BLOCK);
    const associated = Buffer.concat([u32(1), this.keys.vaultId, this.header.id, u64(BigInt.asUintN(64, number))]);
    return { number, disk, plain: disk.length < BLOCK ? null : this.keys.blockKey.open(disk, associated) };
  }

  // A block that has to be there, with its prefix.
  block(i) {
    const block = this.read(i);
    check(block.plain !== null, `segment ${this.number}: block ${i} is missing or does not authenticate`);
    return { ...block, ...this.prefix(block) };
  }

  prefix({ number, plain }) {
    const f = new Fields(plain, `block ${number}`);
    const session = f.take(16), durable = f.u64(), first = f.u32();
    f.zeros(4);
    check(session.equals(this.header.session), `block ${number} is of another session`);
    check(durable <= number, `block ${number} says that it was durable before it was sealed`);
    check(first < STREAM || first === NONE, `block ${number}: first is out of range`);
    return { durable, first, stream: plain.subarray(PREFIX) };
  }
}

function segmentFile(folder, number) { return path.join(folder, 'log', String(number).padStart(10, '0') + '.seg'); }

function loadSegment(vault, number) {
  const segment = unlessAbsent(() => new Segment(vault.keys, segmentFile(vault.folder, number), number));
  check(segment !== null, `segment ${number} is missing`);
  check(segment.header !== null, `segment ${number}'s header does not authenticate`);
  return segment;
}

// Opening, 1.
function findTip(vault) {
  const names = unlessAbsent(() => fs.readdirSync(path.join(vault.folder, 'log')));
  check(names !== null, 'there is no log');
  const numbers = names.filter((n) => /^(\d{10}|[1-9]\d{10,})\.seg$/.test(n)).map((n) => BigInt(n.slice(0, -4))).filter((n) => n > 0n);
  numbers.sort((a, b) => (a < b ? 1 : -1));
  for (const number of numbers) {
    const segment = new Segment(vault.keys, segmentFile(vault.folder, number), number);
    if (segment.header !== null) return segment;
    check(segment.size <= HEADER, `segment ${number}'s header does not authenticate`);
  }
  return check(false, 'the log has no segment');
}

// Whether a segment goes on with the stream of the one before. A checkpoint never does: the commit before it ended its block.
function continuesStream(vault, { header }) {
  if (header.number === 1n || header.flags === 1) return false;
  const before = loadSegment(vault, header.before);
  return before.header.session.equals(header.session);
}

function endsClosed(tip, n) {
  if (n === 0 || tip.size !== HEADER + n * BLOCK || tip.read(n - 1).plain === null) return false;
  const { stream, first } = tip.block(n - 1);
  if (first !== 0 || stream[0] !== COMMIT || stream.readUInt32LE(1) !== COMMIT_SIZE - HEAD) return false;
  return decode(COMMIT, stream.subarray(HEAD, COMMIT_SIZE)).closing;
}

// Opening, 2.
function countTip(vault, tip) {
  const n = tip.whole();
  check(n <= MAX_BLOCKS, 'the last segment is too long');
  if (endsClosed(tip, n)) return n;
  const end = tip.header.first + BigInt(n);
  let good = n, durable = 0n;
  for (let i = 0; i < n; i++) {
    const block = tip.read(i);
    if (block.plain === null) good = Math.min(good, i);
    else if (tip.prefix(block).durable > durable) durable = tip.prefix(block).durable;
  }
  const torn = good === n ? end : tip.header.first + BigInt(good);
  check(torn >= durable, `block ${torn} was on the disk, and is not there now`);
  const records = new RecordStream(continuesStream(vault, tip));
  let counts = 0;
  for (let i = 0; i < good; i++) {
    if (records.feed(tip.block(i)).some((r) => r.type === COMMIT)) counts = i + 1;
  }
  return counts;
}

// ---- The record stream ---------------------------------------------------------------------------------------------------

function maxPayload(type) { return type === DATA ? MAX_DATA : MAX_PAYLOAD; }

// Cuts the stream parts of blocks into records, and checks `first`. joining: the stream's beginning is not at hand, start with
// the first record that a block names.
class RecordStream {
  constructor(joining = false) { this.joining = joining; this.open = null; }

  feed({ number, stream, first }) {
    const records = [];
    let at = 0, starts = NONE;
    if (this.joining) {
      if (first === NONE) return records;
      this.joining = false;
      at = first;
    }
    while (at < STREAM) {
      if (this.open === null) {
        if (starts === NONE) starts = at;
        if (stream[at] === PAD) {
          check(stream.subarray(at + 1).every((b) => b === 0), `block ${number}: a byte after a Pad`);
          break;
        }
        this.begin(stream[at], number, at);
      }
      at = this.more(stream, number, at);
      if (this.open.have < this.open.need) continue;
      records.push(this.finish());
      if (records.at(-1).type === COMMIT) check(at === STREAM || stream[at] === PAD, `block ${number}: a record after a Commit`);
    }
    check(starts === first, `block ${number}: first is not where its first record starts`);
    return records;
  }

  begin(type, number, at) {
    check(type >= COMMIT && type <= RENAME, `block ${number}: a record of type ${type}`);
    if (type === COMMIT) check(at + COMMIT_SIZE <= STREAM, `block ${number}: a Commit in two blocks`);
    this.open = { type, parts: [], have: 0, need: HEAD, data: null };
  }

  // Takes what the block has of the open record; where it is a Data's, notes the place of the file's first byte.
  more(stream, number, at) {
    const r = this.open, size = Math.min(r.need - r.have, STREAM - at), data = HEAD + 16;
    if (r.have <= data && data < r.have + size) r.data = { block: number, at: PREFIX + at + data - r.have };
    r.parts.push(stream.subarray(at, at + size));
    r.have += size;
    if (r.have === HEAD && r.need === HEAD) {
      const length = Buffer.concat(r.parts).readUInt32LE(1);
      check(length <= maxPayload(r.type), `block ${number}: a record of ${length} bytes`);
      if (r.type === COMMIT) check(length === COMMIT_SIZE - HEAD, `block ${number}: a Commit of ${length} bytes`);
      r.need += length;
    }
    return at + size;
  }

  finish() {
    const { type, parts, data } = this.open;
    this.open = null;
    return { type, data, payload: Buffer.concat(parts).subarray(HEAD) };
  }
}

// ---- Records -------------------------------------------------------------------------------------------------------------

// Bytes as a string that a Map can have as key, and that sorts as they do.
const key = (bytes) => bytes.toString('latin1');

function entryName(bytes) {
  check(bytes.length >= 1 && bytes.length <= 255, `a name of ${bytes.length} bytes`);
  const name = key(bytes);
  check(!/[/\0]/.test(name) && name !== '.' && name !== '..', 'a name that is none');
  return name;
}

function xattrName(bytes) {
  check(bytes.length >= 1 && bytes.length <= 255, `an xattr's name of ${bytes.length} bytes`);
  return key(bytes);
}

function decodeInode(f) {
  const r = { ino: f.u64(), mode: f.u32(), uid: f.u32(), gid: f.u32(), rdev: f.u32(), zero: f.zeros(4), size: f.u64(), atime: f.time(), mtime: f.time(), ctime: f.time() };
  check(r.ino >= 1n && r.ino <= MAX_INODE, `inode number ${r.ino}`);
  check(r.mode <= 0o177777 && FILE_TYPES.has(r.mode & S_IFMT), `inode ${r.ino}: mode ${r.mode.toString(8)}`);
  check(r.ino !== 1n || (r.mode & S_IFMT) === S_IFDIR, 'the root is no directory');
  return r;
}

function decodeTarget(f) {
  const ino = f.u64(), target = f.rest();
  check(target.length >= 1 && target.length <= 4095 && !target.includes(0), `inode ${ino}: a target out of bounds`);
  return { ino, target };
}

function decodeSetXattr(f) {
  const ino = f.u64(), name = xattrName(f.take(f.u16())), value = f.rest();
  check(value.length <= 65536, `inode ${ino}: an xattr of ${value.length} bytes`);
  return { ino, name, value };
}

function decodeCommit(f) {
  const r = { sequence: f.u64(), chain: f.take(32), time: f.time(), next: f.u64(), flags: f.u32() };
  check(r.flags <= 1, `commit ${r.sequence}: unknown flags`);
  return { ...r, closing: r.flags === 1 };
}

function decodeData(f) {
  const r = { ino: f.u64(), offset: f.u64(), length: BigInt(f.rest().length) };
  check(r.length > 0n, `inode ${r.ino}: data without bytes`);
  return r;
}

function decodePiece(f) {
  const index = f.u32(), last = f.u8();
  check(last <= 1, `piece ${index}: last is ${last}`);
  return { index, last: last === 1, records: f.rest() };
}

function decodeRename(f) {
  const from = f.u64(), to = f.u64();
  return { from, to, name: entryName(f.take(f.u16())), newName: entryName(f.rest()) };
}

function decodeExtent(f) {
  const r = { ino: f.u64(), offset: f.u64(), length: f.u64(), block: f.u64(), at: f.u32() };
  check(r.length > 0n, `inode ${r.ino}: an empty extent`);
  check(r.at >= PREFIX && r.at < PREFIX + STREAM, `inode ${r.ino}: an extent outside of a block's stream part`);
  return r;
}

function decodeTable(f) {
  const r = { number: f.u64(), id: f.take(16), session: f.take(16), first: f.u64(), blocks: [] };
  const count = f.u32();
  check(count >= 1 && count <= MAX_BLOCKS, `segment ${r.number}: a table of ${count} blocks`);
  for (let i = 0; i < count; i++) r.blocks.push({ hash: f.take(32), tag: f.take(16) });
  return r;
}

const DECODERS = {
  [COMMIT]: decodeCommit,
  [INODE]: decodeInode,
  [TARGET]: decodeTarget,
  [LINK]: (f) => ({ dir: f.u64(), ino: f.u64(), name: entryName(f.rest()) }),
  [UNLINK]: (f) => ({ dir: f.u64(), name: entryName(f.rest()) }),
  [SETXATTR]: decodeSetXattr,
  [REMOVEXATTR]: (f) => ({ ino: f.u64(), name: xattrName(f.rest()) }),
  [DATA]: decodeData,
  [CLEAR]: (f) => ({ ino: f.u64(), offset: f.u64(), length: f.u64() }),
  [FREE]: (f) => ({ ino: f.u64() }),
  [PIECE]: decodePiece,
  [RENAME]: decodeRename,
  [STATE]: (f) => ({ sequence: f.u64(), chain: f.take(32), next: f.u64(), inodes: f.u64() }),
  [EXTENT]: decodeExtent,
  [SEGMENT]: decodeTable,
  [EPOCH]: (f) => ({ session: f.take(16), sequence: f.u64() }),
};

function decode(type, payload) {
  const f = new Fields(payload, `a record of type ${type}`);
  const record = { type, ...DECODERS[type](f) };
  f.end();
  return record;
}

// ---- The tree ------------------------------------------------------------------------------------------------------------

// The part of an extent from its byte `skip` on.
function extentFrom(e, skip) {
  const position = BigInt(e.at - PREFIX) + skip;
  return { offset: e.offset + skip, length: e.length - skip, block: e.block + position / BigInt(STREAM), at: PREFIX + Number(position % BigInt(STREAM)) };
}

// The extents without what lies in [from, to). They are disjoint and in order.
function cutExtents(extents, from, to) {
  const last = extents.at(-1);
  if (last === undefined || last.offset + last.length <= from) return extents;
  const kept = [];
  for (const e of extents) {
    const end = e.offset + e.length;
    if (end <= from || e.offset >= to) { kept.push(e); continue; }
    if (e.offset < from) kept.push({ ...e, length: from - e.offset });
    if (end > to) kept.push(extentFrom(e, to - e.offset));
  }
  return kept;
}

function overlaps(extents, e) {
  const last = extents.at(-1);
  if (last === undefined || last.offset + last.length <= e.offset) return false;
  return extents.some((o) => o.offset < e.offset + e.length && e.offset < o.offset + o.length);
}

function putExtent(extents, e) {
  const last = extents.at(-1);
  extents.push(e);
  if (last !== undefined && last.offset > e.offset) extents.sort((a, b) => (a.offset < b.offset ? -1 : 1));
}

class Tree {
  inodes = new Map();
  freed = new Set();

  get(ino, what) {
    const inode = this.inodes.get(ino);
    check(inode !== undefined, `${what}: inode ${ino} is not there`);
    return inode;
  }
  directory(ino, what) {
    const inode = this.get(ino, what);
    check(inode.type === S_IFDIR, `${what}: inode ${ino} is no directory`);
    return inode;
  }
  file(ino, what) {
    const inode = this.get(ino, what);
    check(inode.type === S_IFREG, `${what}: inode ${ino} is no regular file`);
    return inode;
  }

  apply(record) {
    switch (record.type) {
      case INODE: return this.setInode(record);
      case TARGET: return this.setTarget(record);
      case LINK: return this.link(record.dir, record.ino, record.name);
      case UNLINK: return this.unlink(record);
      case SETXATTR: return this.setXattr(record);
      case REMOVEXATTR: return check(this.get(record.ino, 'RemoveXattr').xattrs.delete(record.name), `inode ${record.ino} has no such xattr`);
      case DATA: return this.putData(record);
      case CLEAR: return this.clear(record);
      case FREE: return this.free(record.ino);
      case RENAME: return this.rename(record);
      default: throw new Error(`apply: ${record.type}`);
    }
  }

  setInode({ ino, mode, size }) {
    const type = mode & S_IFMT;
    let inode = this.inodes.get(ino);
    if (inode === undefined) {
      check(!this.freed.has(ino), `inode number ${ino} is used twice`);
      inode = { ino, type, names: 0, parent: null, entries: new Map(), xattrs: new Map(), extents: [], target: null };
      this.inodes.set(ino, inode);
    }
    check(inode.type === type, `inode ${ino} changes its type`);
    if (type === S_IFREG && inode.size > size) inode.extents = cutExtents(inode.extents, size, inode.size);
    Object.assign(inode, { mode, size });
  }

  setTarget({ ino, target }) {
    const inode = this.get(ino, 'Target');
    check(inode.type === S_IFLNK, `Target: inode ${ino} is no symlink`);
    inode.target = target;
  }

  // Whether a directory is the other, or lies below it.
  within(directory, ino) {
    for (let d = directory; d !== null; d = d.parent) if (d.ino === ino) return true;
    return false;
  }

  link(dir, ino, name) {
    const directory = this.directory(dir, 'Link'), inode = this.get(ino, 'Link');
    check(!directory.entries.has(name), `Link: a name of directory ${dir} is taken`);
    check(ino !== 1n, 'Link: the root has no name');
    if (inode.type === S_IFDIR) {
      check(inode.names === 0, `Link: directory ${ino} has a name`);
      check(!this.within(directory, ino), `Link: directory ${ino} would lie below itself`);
      inode.parent = directory;
    }
    inode.names++;
    directory.entries.set(name, inode);
  }

  takeOut(dir, name, what) {
    const directory = this.directory(dir, what), inode = directory.entries.get(name);
    check(inode !== undefined, `${what}: directory ${dir} has no such name`);
    directory.entries.delete(name);
    inode.names--;
    inode.parent = null;
    return inode;
  }

  unlink({ dir, name }) {
    const inode = this.takeOut(dir, name, 'Unlink');
    check(inode.entries.size === 0, `Unlink: directory ${inode.ino} is not empty`);
  }

  rename({ from, to, name, newName }) {
    check(!this.directory(to, 'Rename').entries.has(newName), `Rename: a name of directory ${to} is taken`);
    this.link(to, this.takeOut(from, name, 'Rename').ino, newName);
  }

  setXattr({ ino, name, value }) {
    const { xattrs } = this.get(ino, 'SetXattr');
    xattrs.set(name, value);
    let total = 0;
    for (const n of xattrs.keys()) total += n.length + 1;
    check(total <= 65536, `inode ${ino}: too many xattrs`);
  }

  putData({ ino, offset, length, data }) {
    const inode = this.file(ino, 'Data');
    check(offset + length <= inode.size, `inode ${ino}: data beyond its size`);
    inode.extents = cutExtents(inode.extents, offset, offset + length);
    putExtent(inode.extents, { offset, length, ...data });
  }

  clear({ ino, offset, length }) {
    const inode = this.file(ino, 'Clear');
    inode.extents = cutExtents(inode.extents, offset, offset + length);
  }

  free(ino) {
    const inode = this.get(ino, 'Free');
    check(inode.names === 0 && ino !== 1n, `Free: inode ${ino} has a name`);
    check(inode.entries.size === 0, `Free: directory ${ino} is not empty`);
    this.inodes.delete(ino);
    this.freed.add(ino);
  }

  checkBelow(next) {
    for (const ino of this.inodes.keys()) check(ino < next, `inode ${ino} is not below the next one, ${next}`);
  }
}

// ---- Checkpoints ---------------------------------------------------------------------------------------------------------

// The records of the stream that begins with segments[0], as far as its session goes; for each: type and payload.
function* recordsOfSession(segments) {
  const stream = new RecordStream();
  for (const segment of segments) {
    if (!segment.header.session.equals(segments[0].header.session)) return;
    for (let i = 0; i < segment.counts; i++) yield* stream.feed(segment.block(i));
  }
}

// The pieces of the checkpoint that segments[0] begins with, or null where it was never finished.
function findPieces(segments) {
  const pieces = [], number = segments[0].number;
  for (const { type, payload } of recordsOfSession(segments)) {
    if (pieces.at(-1)?.last) {
      check(type === COMMIT, `segment ${number}: a checkpoint without a commit behind its last piece`);
      return pieces;
    }
    check(type === PIECE, `segment ${number}: a checkpoint is interrupted`);
    const piece = decode(PIECE, payload);
    check(piece.index === pieces.length, `segment ${number}: a checkpoint's pieces are out of order`);
    pieces.push(piece);
  }
  return null;
}

const CHECKPOINT_TYPES = new Set([STATE, SEGMENT, EPOCH, INODE, TARGET, SETXATTR, EXTENT, LINK]);

function* recordsOfPieces(pieces) {
  for (const { records } of pieces) {
    const f = new Fields(records, 'a piece');
    while (f.at < records.length) {
      const type = f.u8(), length = f.u32();
      check(CHECKPOINT_TYPES.has(type), `a record of type ${type} in a checkpoint`);
      check(length <= maxPayload(type), `a record of ${length} bytes in a checkpoint`);
      yield decode(type, f.take(length));
    }
  }
}

// State, Segments, Epochs, for each inode Inode, Target, SetXattrs and Extents, Links: the place of a type in that order.
const ORDER = { [STATE]: 0, [SEGMENT]: 1, [EPOCH]: 2, [INODE]: 3, [TARGET]: 3, [SETXATTR]: 3, [EXTENT]: 3, [LINK]: 4 };
const ORDER_IN_INODE = [INODE, TARGET, SETXATTR, EXTENT];

class Checkpoint {
  tree = new Tree();
  tables = [];
  epochs = new Map();

  constructor(pieces, segment) {
    this.segment = segment;
    let before = null;
    for (const record of recordsOfPieces(pieces)) {
      this.checkOrder(before, record);
      this.take(record);
      before = record;
    }
    check(before !== null, 'a checkpoint without State');
    check(BigInt(this.tree.inodes.size) === this.state.inodes, 'a checkpoint does not have as many inodes as it says');
    this.tree.checkBelow(this.state.next);
  }

  checkOrder(before, record) {
    if (before === null) return check(record.type === STATE, 'a checkpoint does not begin with its State');
    check(record.type !== STATE, 'a State that is not first');
    check(ORDER[before.type] <= ORDER[record.type], 'records of a checkpoint out of order');
    if (ORDER[record.type] !== 3) return;
    if (record.type === INODE) return check(!this.tree.inodes.has(record.ino), 'an inode twice in a checkpoint');
    check(before.ino === record.ino && ORDER_IN_INODE.indexOf(before.type) <= ORDER_IN_INODE.indexOf(record.type), 'records of an inode out of order');
  }

  take(record) {
    switch (record.type) {
      case STATE: return this.takeState(record);
      case SEGMENT: return this.takeTable(record);
      case EPOCH: return this.takeEpoch(record);
      case EXTENT: return this.takeExtent(record);
      default: return this.tree.apply(record);
    }
  }

  takeState(state) {
    check(state.chain.equals(this.segment.header.chain), 'a checkpoint of another history');
    check(state.sequence >= 1n, 'a checkpoint before the first commit');
    this.state = state;
  }

  takeTable(table) {
    const { header } = this.segment, before = this.tables.at(-1), end = table.first + BigInt(table.blocks.length);
    check(table.number > (before?.number ?? 0n) && table.number < header.number, 'tables out of order');
    check(before === undefined || table.first >= before.first + BigInt(before.blocks.length), 'tables overlap');
    check(end <= header.first, 'a table beyond the checkpoint');
    if (table.number === header.before) check(table.id.equals(header.beforeId) && end === header.first, 'the table of the predecessor is not its');
    this.tables.push(table);
  }

  takeEpoch({ session, sequence }) {
    check(sequence <= this.state.sequence, 'an epoch after the checkpoint');
    check(!this.epochs.has(key(session)), 'an epoch twice');
    this.epochs.set(key(session), sequence);
    check(this.epochs.size <= 1024, 'too many epochs');
  }

  takeExtent(e) {
    const inode = this.tree.file(e.ino, 'Extent');
    check(e.offset + e.length <= inode.size, `inode ${e.ino}: an extent beyond its size`);
    check(!overlaps(inode.extents, e), `inode ${e.ino}: extents overlap`);
    this.checkLive(e);
    putExtent(inode.extents, { offset: e.offset, length: e.length, block: e.block, at: e.at });
  }

  // Every block that an extent names is in a table; tables may be neighbours.
  checkLive(e) {
    const last = extentFrom(e, e.length - 1n).block;
    let next = e.block;
    for (const t of this.tables) {
      const end = t.first + BigInt(t.blocks.length);
      if (t.first <= next && next < end) next = end;
    }
    check(next > last, `inode ${e.ino}: an extent in a block that no live segment has`);
  }

  // Opening, 5, as a checker does it. Returns the live segments.
  verifyTables(vault) {
    return this.tables.map((table) => {
      const segment = loadSegment(vault, table.number), { header } = segment;
      check(header.id.equals(table.id) && header.session.equals(table.session) && header.first === table.first, `segment ${table.number} is not the one of its table`);
      check(segment.whole() >= table.blocks.length, `segment ${table.number} is shorter than its table`);
      segment.counts = table.blocks.length;
      table.blocks.forEach(({ hash, tag }, i) => {
        const { disk } = segment.block(i);
        check(tag.equals(disk.subarray(BLOCK - 16)) && hash.equals(sha256(disk)), `segment ${table.number}: block ${i} is not the one of its table`);
      });
      return segment;
    });
  }
}

// ---- Opening -------------------------------------------------------------------------------------------------------------

// 3. The segments to replay, the oldest first, and the checkpoint that the first begins with, if any.
function walkBack(vault, tip) {
  const segments = [tip];
  for (;;) {
    const { header } = segments[0];
    const pieces = header.flags === 1 ? findPieces(segments) : null;
    if (pieces !== null) return { segments, checkpoint: new Checkpoint(pieces, segments[0]) };
    if (header.number === 1n) return { segments, checkpoint: null };
    const before = loadSegment(vault, header.before);
    check(before.header.id.equals(header.beforeId), `segment ${header.number} follows another segment ${header.before}`);
    check(before.header.first + header.beforeEnd === header.first, `segment ${header.number}: its first block's number does not follow`);
    before.counts = Number(header.beforeEnd);
    segments.unshift(before);
  }
}

const chainAfter = (kind, chain, item) => sha256(Buffer.from([kind]), chain, sha256(item));

class Replay {
  constructor(segments, checkpoint) {
    this.segments = segments;
    this.tree = checkpoint?.tree ?? new Tree();
    this.sequence = checkpoint?.state.sequence ?? 0n;
    this.next = checkpoint?.state.next ?? 1n;
    this.root = null;
    this.closed = false;
  }

  // 4.
  run() {
    let chain = this.segments[0].header.chain, session = null;
    for (const segment of this.segments) {
      const { header } = segment;
      check(header.chain.equals(chain), `segment ${header.number} names another chain value`);
      chain = chainAfter(1, chain, segment.disk);
      if (session === null || !session.equals(header.session)) this.beginSession();
      session = header.session;
      for (let i = 0; i < segment.counts; i++) {
        const block = segment.block(i), after = chainAfter(2, chain, block.disk);
        for (const record of this.stream.feed(block)) this.take(record, chain, after);
        chain = after;
      }
    }
    check(this.root !== null, 'a log without a commit');
    check(this.tree.inodes.has(1n), 'a tree without a root');
  }

  beginSession() {
    this.stream = new RecordStream();
    this.pending = [];
  }

  take({ type, payload, data }, before, after) {
    const record = decode(type, payload);
    if (type !== COMMIT) this.pending.push(type === PIECE ? { type } : { ...record, data });
    else this.commit(record, before, after);
  }

  commit(commit, before, after) {
    check(commit.sequence === this.sequence + 1n, `commit ${commit.sequence} after ${this.sequence}`);
    check(commit.chain.equals(before), `commit ${commit.sequence}: another chain value`);
    check(!commit.closing || this.pending.length === 0, `commit ${commit.sequence}: a closing one that is not empty`);
    for (const record of this.pending) if (record.type !== PIECE) this.tree.apply(record);
    check(commit.next >= this.next && commit.next <= MAX_INODE + 1n, `commit ${commit.sequence}: its next inode goes back`);
    this.tree.checkBelow(commit.next);
    Object.assign(this, { sequence: commit.sequence, next: commit.next, closed: commit.closing, root: after, pending: [] });
  }
}

// ---- Reading what is in the tree -----------------------------------------------------------------------------------------

class Contents {
  constructor(segments) { this.segments = segments; this.hashes = new Map(); this.last = null; }

  stream(number) {
    if (this.last?.number === number) return this.last.stream;
    const segment = this.segments.find((s) => s.header.first <= number && number < s.header.first + BigInt(s.counts));
    check(segment !== undefined, `block ${number} is in no live segment`);
    this.last = segment.block(Number(number - segment.header.first));
    return this.last.stream;
  }

  *bytes(inode) {
    let at = 0n;
    for (const e of inode.extents) {
      yield* zeros(e.offset - at);
      for (let rest = e; rest.length > 0n;) {
        const from = rest.at - PREFIX, room = BigInt(STREAM - from), n = rest.length < room ? rest.length : room;
        yield this.stream(rest.block).subarray(from, from + Number(n));
        rest = extentFrom(rest, n);
      }
      at = e.offset + e.length;
    }
    yield* zeros(inode.size - at);
  }

  sha256(inode) {
    if (!this.hashes.has(inode.ino)) {
      const h = createHash('sha256');
      for (const part of this.bytes(inode)) h.update(part);
      this.hashes.set(inode.ino, h.digest('hex'));
    }
    return this.hashes.get(inode.ino);
  }
}

const ZEROS = Buffer.alloc(1 << 20);
function* zeros(n) {
  for (const size = BigInt(ZEROS.length); n > 0n; n -= size) yield n < size ? ZEROS.subarray(0, Number(n)) : ZEROS;
}

// UTF-8, and \xNN for each byte that is not.
function printable(bytes) {
  let text = '';
  for (let at = 0; at < bytes.length;) {
    const size = [1, 2, 3, 4].find((n) => isUTF8(bytes.subarray(at, at + n)));
    text += size ? bytes.toString('utf8', at, at + size) : `\\x${bytes[at].toString(16).padStart(2, '0')}`;
    at += size ?? 1;
  }
  return text;
}

function isUTF8(bytes) { return Buffer.from(bytes.toString('utf8')).equals(bytes); }

function* listTree(inode, name, contents) {
  const entry = { path: name || '/', mode: inode.mode, size: 0 };
  if (inode.type === S_IFREG) {
    entry.size = inode.size <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(inode.size) : String(inode.size);
    entry.sha256 = contents.sha256(inode);
  }
  if (inode.type === S_IFLNK) entry.target = printable(inode.target ?? Buffer.alloc(0));
  yield entry;
  for (const child of [...inode.entries.keys()].sort()) {
    yield* listTree(inode.entries.get(child), `${name}/${printable(Buffer.from(child, 'latin1'))}`, contents);
  }
}

export function openVault(folder, keyFile) {
  const keys = openHeader(folder, keyFile), vault = { folder, keys };
  const tip = findTip(vault);
  tip.counts = countTip(vault, tip);
  const { segments, checkpoint } = walkBack(vault, tip);
  const replay = new Replay(segments, checkpoint);
  replay.run();
  const live = [...(checkpoint?.verifyTables(vault) ?? []), ...segments];
  check(tip.header.generation <= keys.generation, 'vault.json is older than the log'); // 6.
  const tree = [...listTree(replay.tree.inodes.get(1n), '', new Contents(live))];
  return { expect: 'ok', root: replay.root.toString('hex'), closed: replay.closed, tree };
}

function readVault(folder, keyFile) {
  try {
    return openVault(folder, keyFile);
  } catch (e) {
    if (!(e instanceof Reject)) throw e;
    return { expect: e.expect, detail: e.message };
  }
}

// ---- Command line --------------------------------------------------------------------------------------------------------

// What differs, in a sentence; null where nothing does.
function difference(got, want) {
  if (got.expect !== want.expect) return `is ${got.expect}${got.detail ? ` (${got.detail})` : ''}, not ${want.expect}`;
  if (want.expect !== 'ok') return null;
  if (got.root !== want.root) return `its root is ${got.root}, not ${want.root}`;
  if (got.closed !== (want.closed ?? false)) return `closed is ${got.closed}`;
  const flat = (tree) => tree.map(({ path: p, mode, size, sha256: hash, target }) => JSON.stringify([p, mode, size, hash, target]));
  const [a, b] = [flat(got.tree), flat(want.tree)];
  const i = [...Array(Math.max(a.length, b.length)).keys()].find((n) => a[n] !== b[n]);
  return i === undefined ? null : `its tree has ${a[i]}, not ${b[i]}`;
}

function runVectors(folder) {
  const keyFile = fs.readFileSync(path.join(folder, 'machine.key'));
  const vectors = JSON.parse(fs.readFileSync(path.join(folder, 'vectors.json'), 'utf8'));
  let failed = 0;
  for (const vector of vectors) {
    const why = difference(readVault(path.join(folder, `${vector.name}.vault`), keyFile), vector);
    if (why === null) continue;
    failed++;
    console.log(`${vector.name} (${vector.fault}): ${why}`);
  }
  console.log(`${vectors.length - failed} passed, ${failed} failed`);
  return failed === 0 && vectors.length > 0 ? 0 : 1;
}

function main([first, second, ...more]) {
  if (second === undefined || more.length > 0) {
    console.error('usage: reader.mjs VAULT KEYFILE | reader.mjs --vectors DIR');
    return 2;
  }
  if (first === '--vectors') return runVectors(second);
  console.log(JSON.stringify(readVault(first, fs.readFileSync(second))));
  return 0;
}

if (process.argv[1] && import.meta.url === pathToFileURL(fs.realpathSync(process.argv[1])).href) process.exitCode = main(process.argv.slice(2));
