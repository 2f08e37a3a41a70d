/* One library that stands in for CoreFoundation, Security and IOKit of macOS, in tests on Linux: the calls that the
 * product makes, with the memory rules of Core Foundation and keys of OpenSSL.
 *
 * What Apple's own sources and reports of users say of the Secure Enclave is imitated:
 *   - a permanent key wants an entitled program, else OSStatus -34018 (errSecMissingEntitlement);
 *   - a key that is not permanent has its wrapped blob in the attribute "toid";
 *   - SecKeyCreateWithData gives the key of a blob under "toid"; without that attribute it makes a new key;
 *   - a blob of another enclave is refused by the token (CryptoTokenKit -3);
 *   - a private key has no external representation.
 *
 * standin_* steer it: which call fails how, whether the program is entitled, which machine this is; and count objects
 * that are alive.
 */
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum { T_STRING = 1, T_DATA, T_NUMBER, T_BOOLEAN, T_DICTIONARY, T_ERROR, T_KEY, T_ACCESS } Type;

typedef struct Object Object;
struct Object {
    Type type;
    int refs; /* below 0: a constant */
    char *text;                     /* string; error: domain */
    unsigned char *bytes;           /* data; key: wrapped blob */
    size_t size;
    long number;                    /* number, boolean; error: code; access: flags */
    Object **keys, **values;        /* dictionary */
    size_t count;
    EVP_PKEY *pkey;                 /* key */
    int private;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static long live;
static int entitled;
static char machine[64] = "a machine";
static char serial[64] = "C02STANDIN1";
static struct { char call[64], domain[64]; long code; } failure;
static struct { char tag[128]; unsigned char *blob; size_t size; } keychain[16];

#define EXPORT __attribute__((visibility("default")))

static Object *make(Type t)
{
    Object *o = calloc(1, sizeof *o);
    o->type = t;
    o->refs = 1;
    __atomic_add_fetch(&live, 1, __ATOMIC_SEQ_CST);
    return o;
}

EXPORT void *CFRetain(void *p)
{
    Object *o = p;
    if (!o)
        abort();
    if (o->refs > 0)
        __atomic_add_fetch(&o->refs, 1, __ATOMIC_SEQ_CST);
    return o;
}

EXPORT void CFRelease(void *p)
{
    Object *o = p;
    if (!o || o->refs == 0)
        abort(); /* as Core Foundation does */
    if (o->refs < 0 || __atomic_sub_fetch(&o->refs, 1, __ATOMIC_SEQ_CST) > 0)
        return;
    for (size_t i = 0; i < o->count; i++) {
        CFRelease(o->keys[i]);
        CFRelease(o->values[i]);
    }
    free(o->keys);
    free(o->values);
    free(o->text);
    free(o->bytes);
    EVP_PKEY_free(o->pkey);
    free(o);
    __atomic_sub_fetch(&live, 1, __ATOMIC_SEQ_CST);
}

static Object *string(const char *s)
{
    Object *o = make(T_STRING);
    o->text = strdup(s);
    return o;
}

static Object *data(const void *b, size_t n)
{
    Object *o = make(T_DATA);
    o->bytes = malloc(n + 1);
    memcpy(o->bytes, b, n);
    o->size = n;
    return o;
}

static int equal(const Object *a, const Object *b)
{
    if (a == b)
        return 1;
    if (a->type != b->type)
        return 0;
    if (a->type == T_STRING)
        return strcmp(a->text, b->text) == 0;
    if (a->type == T_DATA)
        return a->size == b->size && memcmp(a->bytes, b->bytes, a->size) == 0;
    return 0;
}

/* --- steering --- */

EXPORT void standin_fail(const char *call, const char *domain, long code)
{
    pthread_mutex_lock(&mutex);
    snprintf(failure.call, sizeof failure.call, "%s", call);
    snprintf(failure.domain, sizeof failure.domain, "%s", domain);
    failure.code = code;
    pthread_mutex_unlock(&mutex);
}
EXPORT void standin_entitle(int yes)
{
    entitled = yes;
    for (size_t i = 0; !yes && i < 16; i++) { /* the keychain goes with it */
        free(keychain[i].blob);
        keychain[i].blob = NULL;
    }
}
EXPORT void standin_machine(const char *name) { snprintf(machine, sizeof machine, "%s", name); }
EXPORT void standin_serial(const char *s) { snprintf(serial, sizeof serial, "%s", s); }
EXPORT long standin_live(void) { return __atomic_load_n(&live, __ATOMIC_SEQ_CST); }

static void set_error(Object **out, const char *domain, long code)
{
    if (!out)
        return;
    *out = make(T_ERROR);
    (*out)->text = strdup(domain);
    (*out)->number = code;
}

/* fails says whether a call is to fail, and gives its error: with an empty domain none, as careless code does. */
static int fails(const char *call, Object **error)
{
    int yes;
    pthread_mutex_lock(&mutex);
    yes = strcmp(failure.call, call) == 0;
    if (yes && failure.domain[0])
        set_error(error, failure.domain, failure.code);
    pthread_mutex_unlock(&mutex);
    return yes;
}

/* --- CoreFoundation --- */

#define CONSTANT_STRING(name, value) \
    static Object object_##name = {T_STRING, -1, value, 0, 0, 0, 0, 0, 0, 0, 0}; \
    EXPORT const void *name = &object_##name;

static Object object_true = {T_BOOLEAN, -1, 0, 0, 0, 1, 0, 0, 0, 0, 0};
static Object object_false = {T_BOOLEAN, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0};
EXPORT const void *kCFBooleanTrue = &object_true;
EXPORT const void *kCFBooleanFalse = &object_false;
EXPORT const char kCFTypeDictionaryKeyCallBacks[48] = {1};
EXPORT const char kCFTypeDictionaryValueCallBacks[40] = {2};

EXPORT unsigned long CFGetTypeID(Object *o) { return o->type; }
EXPORT unsigned long CFDataGetTypeID(void) { return T_DATA; }
EXPORT unsigned long CFStringGetTypeID(void) { return T_STRING; }

EXPORT void *CFStringCreateWithCString(void *allocator, const char *s, uint32_t encoding)
{
    (void)allocator;
    if (encoding != 0x08000100 || fails("CFStringCreateWithCString", NULL))
        return NULL;
    return string(s);
}

EXPORT unsigned char CFStringGetCString(Object *o, char *out, long size, uint32_t encoding)
{
    if (encoding != 0x08000100 || o->type != T_STRING || (long)strlen(o->text) >= size)
        return 0;
    strcpy(out, o->text);
    return 1;
}

EXPORT void *CFDataCreate(void *allocator, const unsigned char *b, long n)
{
    (void)allocator;
    if (fails("CFDataCreate", NULL))
        return NULL;
    return data(b, (size_t)n);
}
EXPORT const unsigned char *CFDataGetBytePtr(Object *o) { return o->bytes; }
EXPORT long CFDataGetLength(Object *o) { return (long)o->size; }

EXPORT void *CFNumberCreate(void *allocator, long type, const void *v)
{
    Object *o;
    (void)allocator;
    if (type != 3) /* kCFNumberSInt32Type */
        return NULL;
    o = make(T_NUMBER);
    o->number = *(const int32_t *)v;
    return o;
}

EXPORT void *CFDictionaryCreateMutable(void *allocator, long capacity, const void *k, const void *v)
{
    (void)allocator;
    (void)capacity;
    if (k != kCFTypeDictionaryKeyCallBacks || v != kCFTypeDictionaryValueCallBacks)
        abort(); /* without them nothing would be retained */
    if (fails("CFDictionaryCreateMutable", NULL))
        return NULL;
    return make(T_DICTIONARY);
}

EXPORT void CFDictionarySetValue(Object *d, Object *k, Object *v)
{
    if (!k || !v)
        abort();
    CFRetain(k);
    CFRetain(v);
    for (size_t i = 0; i < d->count; i++)
        if (equal(d->keys[i], k)) {
            CFRelease(d->keys[i]);
            CFRelease(d->values[i]);
            d->keys[i] = k;
            d->values[i] = v;
            return;
        }
    d->keys = realloc(d->keys, (d->count + 1) * sizeof *d->keys);
    d->values = realloc(d->values, (d->count + 1) * sizeof *d->values);
    d->keys[d->count] = k;
    d->values[d->count++] = v;
}

EXPORT void *CFDictionaryGetValue(Object *d, Object *k)
{
    for (size_t i = 0; i < d->count; i++)
        if (equal(d->keys[i], k))
            return d->values[i];
    return NULL;
}

EXPORT long CFErrorGetCode(Object *e) { return e->number; }
EXPORT void *CFErrorGetDomain(Object *e)
{
    static Object domains[8]; /* by the get rule: nobody releases it */
    static size_t n;
    size_t i;
    pthread_mutex_lock(&mutex);
    for (i = 0; i < n && strcmp(domains[i].text, e->text) != 0; i++)
        ;
    if (i == n) {
        if (n == 8)
            abort();
        domains[n].type = T_STRING;
        domains[n].refs = -1;
        domains[n++].text = strdup(e->text);
    }
    pthread_mutex_unlock(&mutex);
    return &domains[i];
}
EXPORT void *CFErrorCopyDescription(Object *e)
{
    char text[160];
    snprintf(text, sizeof text, "The operation couldn't be completed. (%s error %ld.)", e->text, e->number);
    return string(text);
}

/* --- Security --- */

CONSTANT_STRING(kSecClass, "class")
CONSTANT_STRING(kSecClassKey, "keys")
CONSTANT_STRING(kSecReturnRef, "r_Ref")
CONSTANT_STRING(kSecUseDataProtectionKeychain, "nleg")
CONSTANT_STRING(kSecAttrLabel, "labl")
CONSTANT_STRING(kSecAttrApplicationTag, "atag")
CONSTANT_STRING(kSecAttrKeyClass, "kcls")
CONSTANT_STRING(kSecAttrKeyClassPrivate, "1")
CONSTANT_STRING(kSecAttrKeyType, "type")
CONSTANT_STRING(kSecAttrKeyTypeECSECPrimeRandom, "73")
CONSTANT_STRING(kSecAttrKeySizeInBits, "bsiz")
CONSTANT_STRING(kSecAttrIsPermanent, "perm")
CONSTANT_STRING(kSecAttrTokenID, "tkid")
CONSTANT_STRING(kSecAttrTokenIDSecureEnclave, "com.apple.setoken")
CONSTANT_STRING(kSecAttrAccessControl, "accc")
CONSTANT_STRING(kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly, "cku")
CONSTANT_STRING(kSecPrivateKeyAttrs, "private")
CONSTANT_STRING(kSecKeyAlgorithmECDSASignatureDigestX962SHA256, "algid:sign:ECDSA:digest-X962:SHA256")

static Object toid = {T_STRING, -1, "toid", 0, 0, 0, 0, 0, 0, 0, 0};

static void *get(Object *d, const void *k) { return CFDictionaryGetValue(d, (Object *)k); }

static int is(Object *d, const void *k, const void *v)
{
    Object *o = get(d, k);
    return o && equal(o, v);
}

static void stream(unsigned char *b, size_t n)
{
    unsigned char pad[SHA256_DIGEST_LENGTH];
    SHA256((unsigned char *)machine, strlen(machine), pad);
    for (size_t i = 0; i < n; i++)
        b[i] ^= pad[i % sizeof pad] ^ 0x5a;
}

/* wrap makes the blob of a key: 8 bytes of the machine, then the key under its pad. */
static void wrap(Object *o)
{
    unsigned char id[SHA256_DIGEST_LENGTH], *der = NULL;
    int n = i2d_PrivateKey(o->pkey, &der);
    if (n <= 0)
        abort();
    SHA256((unsigned char *)machine, strlen(machine), id);
    o->bytes = malloc((size_t)n + 8);
    memcpy(o->bytes, id, 8);
    memcpy(o->bytes + 8, der, (size_t)n);
    stream(o->bytes + 8, (size_t)n);
    o->size = (size_t)n + 8;
    OPENSSL_free(der);
}

static Object *fresh(void)
{
    Object *o = make(T_KEY);
    o->pkey = EVP_EC_gen("P-256");
    o->private = 1;
    if (!o->pkey)
        abort();
    wrap(o);
    return o;
}

static Object *unwrap(const unsigned char *blob, size_t size)
{
    unsigned char id[SHA256_DIGEST_LENGTH], buf[512];
    const unsigned char *p = buf;
    EVP_PKEY *k;
    Object *o;
    SHA256((unsigned char *)machine, strlen(machine), id);
    if (size <= 8 || size > sizeof buf || memcmp(id, blob, 8) != 0)
        return NULL;
    memcpy(buf, blob + 8, size - 8);
    stream(buf, size - 8);
    k = d2i_AutoPrivateKey(NULL, &p, (long)size - 8);
    if (!k)
        return NULL;
    o = make(T_KEY);
    o->pkey = k;
    o->private = 1;
    o->bytes = malloc(size);
    memcpy(o->bytes, blob, size);
    o->size = size;
    return o;
}

EXPORT void *SecAccessControlCreateWithFlags(void *allocator, Object *protection, unsigned long flags, Object **error)
{
    Object *o;
    (void)allocator;
    if (fails("SecAccessControlCreateWithFlags", error))
        return NULL;
    if (!equal(protection, kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly) || flags != 1ul << 30) {
        set_error(error, "NSOSStatusErrorDomain", -50);
        return NULL;
    }
    o = make(T_ACCESS);
    o->number = (long)flags;
    return o;
}

EXPORT void *SecKeyCreateRandomKey(Object *d, Object **error)
{
    Object *attrs = get(d, kSecPrivateKeyAttrs), *bits = get(d, kSecAttrKeySizeInBits), *access, *o, *tag;
    int permanent;
    if (fails("SecKeyCreateRandomKey", error))
        return NULL;
    access = attrs ? get(attrs, kSecAttrAccessControl) : NULL;
    if (!is(d, kSecAttrKeyType, kSecAttrKeyTypeECSECPrimeRandom) || !is(d, kSecAttrTokenID, kSecAttrTokenIDSecureEnclave) || !bits ||
        bits->number != 256 || !access || access->type != T_ACCESS) {
        set_error(error, "NSOSStatusErrorDomain", -50); /* errSecParam */
        return NULL;
    }
    permanent = is(attrs, kSecAttrIsPermanent, kCFBooleanTrue);
    if (permanent && !entitled) {
        set_error(error, "NSOSStatusErrorDomain", -34018);
        return NULL;
    }
    o = fresh();
    tag = get(attrs, kSecAttrApplicationTag);
    if (permanent && tag) {
        pthread_mutex_lock(&mutex);
        for (size_t i = 0; i < 16; i++)
            if (!keychain[i].blob) {
                snprintf(keychain[i].tag, sizeof keychain[i].tag, "%.*s", (int)tag->size, tag->bytes);
                keychain[i].blob = malloc(o->size);
                memcpy(keychain[i].blob, o->bytes, o->size);
                keychain[i].size = o->size;
                break;
            }
        pthread_mutex_unlock(&mutex);
    }
    return o;
}

EXPORT void *SecKeyCreateWithData(Object *bytes, Object *d, Object **error)
{
    Object *blob = get(d, &toid), *o;
    if (fails("SecKeyCreateWithData", error))
        return NULL;
    if (!bytes || bytes->type != T_DATA || !is(d, kSecAttrTokenID, kSecAttrTokenIDSecureEnclave) || !is(d, kSecAttrKeyClass, kSecAttrKeyClassPrivate)) {
        set_error(error, "NSOSStatusErrorDomain", -50);
        return NULL;
    }
    if (!blob || fails("forget toid", NULL))
        return fresh();
    o = unwrap(blob->bytes, blob->size);
    if (!o)
        set_error(error, "CryptoTokenKit", -3);
    return o;
}

EXPORT void *SecKeyCopyPublicKey(Object *k)
{
    Object *o;
    if (fails("SecKeyCopyPublicKey", NULL))
        return NULL;
    o = make(T_KEY);
    EVP_PKEY_up_ref(k->pkey);
    o->pkey = k->pkey;
    return o;
}

EXPORT void *SecKeyCopyExternalRepresentation(Object *k, Object **error)
{
    unsigned char *point = NULL;
    size_t n;
    Object *o;
    if (fails("SecKeyCopyExternalRepresentation", error))
        return NULL;
    if (k->private) {
        set_error(error, "NSOSStatusErrorDomain", -4);
        return NULL;
    }
    if (fails("short point", NULL))
        return data("\4", 1);
    n = EVP_PKEY_get1_encoded_public_key(k->pkey, &point);
    o = data(point, n);
    OPENSSL_free(point);
    return o;
}

EXPORT void *SecKeyCopyAttributes(Object *k)
{
    Object *d = make(T_DICTIONARY), *blob;
    if (fails("SecKeyCopyAttributes", NULL)) {
        CFRelease(d);
        return NULL;
    }
    if (k->private && !fails("no toid", NULL)) {
        blob = data(k->bytes, k->size);
        CFDictionarySetValue(d, &toid, blob);
        CFRelease(blob);
    }
    return d;
}

EXPORT void *SecKeyCreateSignature(Object *k, Object *algorithm, Object *digest, Object **error)
{
    unsigned char sig[80];
    size_t n = sizeof sig;
    EVP_PKEY_CTX *c;
    if (fails("SecKeyCreateSignature", error))
        return NULL;
    if (!k->private || !equal(algorithm, kSecKeyAlgorithmECDSASignatureDigestX962SHA256) || digest->size != 32) {
        set_error(error, "NSOSStatusErrorDomain", -50);
        return NULL;
    }
    c = EVP_PKEY_CTX_new(k->pkey, NULL);
    if (!c || EVP_PKEY_sign_init(c) <= 0 || EVP_PKEY_sign(c, sig, &n, digest->bytes, digest->size) <= 0)
        abort();
    EVP_PKEY_CTX_free(c);
    return data(sig, n);
}

EXPORT int32_t SecItemCopyMatching(Object *q, Object **out)
{
    Object *tag = get(q, kSecAttrApplicationTag);
    int32_t rc = -25300; /* errSecItemNotFound */
    if (fails("SecItemCopyMatching", NULL))
        return (int32_t)failure.code;
    if (!is(q, kSecClass, kSecClassKey) || !is(q, kSecReturnRef, kCFBooleanTrue) || !tag || !out)
        return -50;
    if (!entitled)
        return -34018;
    pthread_mutex_lock(&mutex);
    for (size_t i = 0; i < 16; i++)
        if (keychain[i].blob && strlen(keychain[i].tag) == tag->size && memcmp(keychain[i].tag, tag->bytes, tag->size) == 0) {
            *out = unwrap(keychain[i].blob, keychain[i].size);
            rc = *out ? 0 : -25300;
        }
    pthread_mutex_unlock(&mutex);
    return rc;
}

EXPORT int32_t SecItemDelete(Object *q)
{
    Object *tag = get(q, kSecAttrApplicationTag);
    int32_t rc = -25300;
    if (fails("SecItemDelete", NULL))
        return (int32_t)failure.code;
    if (!is(q, kSecClass, kSecClassKey) || !tag)
        return -50;
    if (!entitled)
        return -34018;
    pthread_mutex_lock(&mutex);
    for (size_t i = 0; i < 16; i++)
        if (keychain[i].blob && strlen(keychain[i].tag) == tag->size && memcmp(keychain[i].tag, tag->bytes, tag->size) == 0) {
            free(keychain[i].blob);
            keychain[i].blob = NULL;
            rc = 0;
        }
    pthread_mutex_unlock(&mutex);
    return rc;
}

EXPORT int standin_keychain(void)
{
    int n = 0;
    for (size_t i = 0; i < 16; i++)
        n += keychain[i].blob != NULL;
    return n;
}

/* --- IOKit --- */

EXPORT void *IOServiceMatching(const char *name)
{
    Object *d, *k, *v;
    if (fails("IOServiceMatching", NULL))
        return NULL;
    d = make(T_DICTIONARY);
    k = string("IOProviderClass");
    v = string(name);
    CFDictionarySetValue(d, k, v);
    CFRelease(k);
    CFRelease(v);
    return d;
}

static int services;

EXPORT uint32_t IOServiceGetMatchingService(uint32_t port, Object *matching)
{
    int found = port == 0 && strcmp(matching->values[0]->text, "IOPlatformExpertDevice") == 0;
    CFRelease(matching); /* it takes the reference */
    if (!found || fails("IOServiceGetMatchingService", NULL))
        return 0;
    __atomic_add_fetch(&services, 1, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&live, 1, __ATOMIC_SEQ_CST);
    return 7;
}

EXPORT void *IORegistryEntryCreateCFProperty(uint32_t entry, Object *key, void *allocator, uint32_t options)
{
    (void)allocator;
    (void)options;
    if (entry != 7 || strcmp(key->text, "IOPlatformSerialNumber") != 0 || fails("IORegistryEntryCreateCFProperty", NULL))
        return NULL;
    if (fails("serial is data", NULL))
        return data("C02", 3);
    return string(serial);
}

EXPORT int32_t IOObjectRelease(uint32_t object)
{
    if (object != 7 || __atomic_sub_fetch(&services, 1, __ATOMIC_SEQ_CST) < 0)
        abort();
    __atomic_sub_fetch(&live, 1, __ATOMIC_SEQ_CST);
    return 0;
}
