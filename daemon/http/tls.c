/* SPDX-License-Identifier: Apache-2.0
 * Certificates and keys, by GnuTLS. MHD asks for them at each handshake, so that those in force may change while connections go on; a handshake gets a
 * copy of its own, which GnuTLS frees. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <gnutls/abstract.h>
#include <gnutls/x509.h>

#include "common/fault.h"
#include "daemon/http/internal.h"

#define FILE_BYTES_MAX (256u * 1024)

struct xn_tls_pair {
    atomic_uint refs; /* the last one frees: release by each, acquire by the last */
    gnutls_x509_crt_t *chain;
    unsigned n;
    gnutls_x509_privkey_t key;
};

struct xn_tls {
    pthread_mutex_t pair_lock; /* guards pair; held for a reference only */
    struct xn_tls_pair *pair;
};

/* ---- reading ------------------------------------------------------------------------------------------------------ */

/* A certificate is no secret, and its file is read as it is. */
static int read_chain(const char *path, struct xn_tls_pair *pair, struct xn_error *error)
{
    gnutls_datum_t pem = {0};

    int r = gnutls_load_file(path, &pem);
    if (r >= 0)
        r = gnutls_x509_crt_list_import2(&pair->chain, &pair->n, &pem, GNUTLS_X509_FMT_PEM,
                                         GNUTLS_X509_CRT_LIST_FAIL_IF_UNSORTED);
    gnutls_free(pem.data);
    if (r < 0)
        return xn_error_set(error, -EINVAL, "certificate %s: %s", path, gnutls_strerror(r));
    return 0;
}

static int read_key(const char *path, struct xn_tls_pair *pair, struct xn_error *error)
{
    char *text;
    size_t bytes;

    int r = xn_secret_read("key", path, FILE_BYTES_MAX, &text, &bytes, error);
    if (r < 0)
        return r;
    gnutls_datum_t pem = {.data = (unsigned char *)text, .size = (unsigned)bytes};
    r = gnutls_x509_privkey_init(&pair->key);
    if (r >= 0)
        r = gnutls_x509_privkey_import2(pair->key, &pem, GNUTLS_X509_FMT_PEM, NULL, 0);
    gnutls_memset(text, 0, bytes);
    free(text);
    return r < 0 ? xn_error_set(error, -EINVAL, "key %s: %s", path, gnutls_strerror(r)) : 0;
}

static bool is_its_key(const struct xn_tls_pair *pair)
{
    unsigned char a[64], b[64];
    size_t a_bytes = sizeof(a), b_bytes = sizeof(b);

    return gnutls_x509_crt_get_key_id(pair->chain[0], GNUTLS_KEYID_USE_SHA256, a, &a_bytes) >= 0 &&
           gnutls_x509_privkey_get_key_id(pair->key, GNUTLS_KEYID_USE_SHA256, b, &b_bytes) >= 0 && a_bytes == b_bytes &&
           memcmp(a, b, a_bytes) == 0;
}

int xn_tls_pair_read(const char *certificate, const char *key, struct xn_tls_pair **ret_pair, struct xn_error *error)
{
    struct xn_tls_pair *pair = xn_calloc(1, sizeof(*pair));

    if (!pair)
        return xn_error_set(error, -ENOMEM, "no memory for certificate %s", certificate);
    atomic_init(&pair->refs, 1);
    int r = read_chain(certificate, pair, error);
    if (r >= 0)
        r = read_key(key, pair, error);
    if (r >= 0 && !is_its_key(pair))
        r = xn_error_set(error, -EINVAL, "key %s is not the one of certificate %s", key, certificate);
    if (r < 0) {
        xn_tls_pair_unref(pair);
        return r;
    }
    *ret_pair = pair;
    return 0;
}

void xn_tls_pair_unref(struct xn_tls_pair *pair)
{
    if (!pair || atomic_fetch_sub_explicit(&pair->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (unsigned i = 0; i < pair->n; i++)
        gnutls_x509_crt_deinit(pair->chain[i]);
    gnutls_free(pair->chain);
    gnutls_x509_privkey_deinit(pair->key);
    free(pair);
}

/* ---- in force ----------------------------------------------------------------------------------------------------- */

int xn_tls_new(struct xn_tls **ret_tls)
{
    struct xn_tls *tls = xn_calloc(1, sizeof(*tls));

    if (!tls)
        return -ENOMEM;
    pthread_mutex_init(&tls->pair_lock, NULL);
    *ret_tls = tls;
    return 0;
}

void xn_tls_free(struct xn_tls *tls)
{
    if (!tls)
        return;
    xn_tls_pair_unref(tls->pair);
    pthread_mutex_destroy(&tls->pair_lock);
    free(tls);
}

void xn_tls_apply(struct xn_tls *tls, struct xn_tls_pair *pair)
{
    pthread_mutex_lock(&tls->pair_lock);
    struct xn_tls_pair *old = tls->pair;
    tls->pair = pair;
    pthread_mutex_unlock(&tls->pair_lock);
    xn_tls_pair_unref(old);
}

static struct xn_tls_pair *current(struct xn_tls *tls)
{
    pthread_mutex_lock(&tls->pair_lock);
    struct xn_tls_pair *pair = tls->pair;
    if (pair)
        atomic_fetch_add_explicit(&pair->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&tls->pair_lock);
    return pair;
}

static int copy_chain(const struct xn_tls_pair *pair, struct gnutls_pcert_st **ret_chain)
{
    struct gnutls_pcert_st *chain = gnutls_calloc(pair->n, sizeof(*chain));

    if (!chain)
        return GNUTLS_E_MEMORY_ERROR;
    for (unsigned i = 0; i < pair->n; i++) {
        int r = gnutls_pcert_import_x509(&chain[i], pair->chain[i], 0);
        if (r >= 0)
            continue;
        while (i-- > 0)
            gnutls_pcert_deinit(&chain[i]);
        gnutls_free(chain);
        return r;
    }
    *ret_chain = chain;
    return 0;
}

static int copy_pair(const struct xn_tls_pair *pair, struct gnutls_pcert_st **ret_chain, gnutls_privkey_t *ret_key)
{
    gnutls_privkey_t key;

    int r = gnutls_privkey_init(&key);
    if (r < 0)
        return r;
    r = gnutls_privkey_import_x509(key, pair->key, GNUTLS_PRIVKEY_IMPORT_COPY);
    if (r >= 0)
        r = copy_chain(pair, ret_chain);
    if (r < 0) {
        gnutls_privkey_deinit(key);
        return r;
    }
    *ret_key = key;
    return 0;
}

int xn_tls_retrieve(gnutls_session_t session, const struct gnutls_cert_retr_st *info,
                    struct gnutls_pcert_st **ret_chain, unsigned *ret_n, gnutls_ocsp_data_st **ret_ocsp,
                    unsigned *ret_n_ocsp, struct gnutls_privkey_st **ret_key, unsigned *ret_flags)
{
    struct MHD_Connection *connection = gnutls_session_get_ptr(session);
    const struct xn_link *link = connection ? xn_link_of(connection) : NULL;
    struct xn_tls_pair *pair = link && link->door->tls ? current(link->door->tls) : NULL;

    (void)info;
    if (!pair)
        return -1;
    int r = copy_pair(pair, ret_chain, ret_key);
    *ret_n = pair->n;
    *ret_ocsp = NULL;
    *ret_n_ocsp = 0;
    *ret_flags = GNUTLS_CERT_RETR_DEINIT_ALL;
    xn_tls_pair_unref(pair);
    return r < 0 ? -1 : 0;
}
