#!/usr/bin/env python3
"""Writes slots.json: key slots with known answers, made without the Go code.

Needs the Python package "cryptography" 44 or newer. Every input is fixed, so
that running it again gives the same file. Each slot has one fault at most, and
the class of failure it must meet: ok, wrong (passkey), damaged, parameter.
"""
import json
import struct
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

PASSPHRASE, MACHINE = 1, 2
MASTER = bytes(range(0x60, 0x80))
VAULT = bytes(range(16))


def mac(key, data):
    h = hmac.HMAC(key, hashes.SHA256())
    h.update(data)
    return h.finalize()


def expand(prk, info):
    return HKDFExpand(hashes.SHA256(), 32, info).derive(prk)


def slot(kind, secret, number, memory=0, time=0, lanes=0):
    ident = bytes([number]) * 16
    salt = bytes((number * 7 + i * 3) & 255 for i in range(32))
    if kind == PASSPHRASE:
        ikm = Argon2id(salt=salt, length=32, iterations=time, lanes=lanes, memory_cost=memory).derive(secret)
        kdf = {"algorithm": "argon2id", "memory_kib": memory, "time": time, "parallelism": lanes}
    else:
        ikm = secret
        kdf = {"algorithm": "hkdf-sha256"}
    kdf["salt"] = salt.hex()
    context = b"encfsrun v1 slot\0" + VAULT + ident + bytes([kind]) + struct.pack("<III", memory, time, lanes) + salt
    prk = mac(salt, ikm)
    key = expand(prk, b"encfsrun v1 slot wrapping key")
    return {
        "id": ident.hex(),
        "type": {PASSPHRASE: "passphrase", MACHINE: "machine"}[kind],
        "kdf": kdf,
        "commitment": expand(prk, b"encfsrun v1 slot commitment").hex(),
        "wrapped_key": AESGCM(key).encrypt(bytes(12), MASTER, context).hex(),
    }


def flipped(text):
    return text[:-1] + "%x" % (int(text[-1], 16) ^ 1)


def vector(name, passkey, s, outcome):
    return {"name": name, "passkey": passkey.hex(), "slot": s, "outcome": outcome}


def main():
    phrase = "correct horse bätteŕy".encode()
    machine = bytes(range(0x80, 0xA0))
    p = lambda n, m=64, t=2, l=2: slot(PASSPHRASE, phrase, n, m, t, l)
    m = lambda n: slot(MACHINE, machine, n)
    vectors = [
        vector("passphrase, least cost", phrase, p(1, 8, 1, 1), "ok"),
        vector("passphrase, several lanes and passes", phrase, p(2, 1000, 3, 4), "ok"),
        vector("passphrase with a newline", phrase + b"\n", p(3), "ok"),
        vector("passphrase with a Windows newline", phrase + b"\r\n", p(4), "ok"),
        vector("machine key", machine, m(5), "ok"),
        vector("another passphrase", b"correct horse", p(6), "wrong"),
        vector("another machine key", bytes(32), m(7), "wrong"),
        vector("commitment altered", phrase, (lambda s: s | {"commitment": flipped(s["commitment"])})(p(8)), "wrong"),
        vector("wrapped key altered", phrase, (lambda s: s | {"wrapped_key": flipped(s["wrapped_key"])})(p(9)), "damaged"),
        vector("id altered", machine, (lambda s: s | {"id": flipped(s["id"])})(m(10)), "damaged"),
        vector("memory altered", phrase, (lambda s: s | {"kdf": s["kdf"] | {"memory_kib": 65}})(p(11)), "wrong"),
        vector("memory of 8 GiB", phrase, (lambda s: s | {"kdf": s["kdf"] | {"memory_kib": 8388608}})(p(12)), "parameter"),
        vector("no passes", phrase, (lambda s: s | {"kdf": s["kdf"] | {"time": 0}})(p(13)), "parameter"),
        vector("more lanes than the memory has room for", phrase, (lambda s: s | {"kdf": s["kdf"] | {"parallelism": 9}})(p(14)), "parameter"),
    ]
    with open("slots.json", "w") as f:
        json.dump({"vault_id": VAULT.hex(), "master_key": MASTER.hex(), "vectors": vectors}, f, indent=1)
        f.write("\n")


main()
