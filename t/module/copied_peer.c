
/*
 * For copied_peer.t: around the keepalive of each upstream, calls its get and
 * free with a copy of ngx_peer_connection_t, as a module may do that has peer
 * connections of its own.  After a request with "answer=1" among its
 * arguments has failed once, it answers with the next server itself.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


typedef struct {
    void                     *data;
    ngx_event_get_peer_pt     get;
    ngx_event_free_peer_pt    free;
    ngx_uint_t                answer;
    ngx_uint_t                tries;
    struct sockaddr          *sockaddr;
    socklen_t                 socklen;
    ngx_str_t                *name;
} copied_peer_t;


static char *copied_init_main_conf(ngx_conf_t *cf, void *conf);
static void *copied_create_main_conf(ngx_conf_t *cf);
static ngx_int_t copied_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t copied_get_peer(ngx_peer_connection_t *pc, void *data);
static void copied_free_peer(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);


static ngx_http_upstream_init_peer_pt   copied_original_init;


static ngx_http_module_t  copied_ctx = {
    NULL,                          /* preconfiguration */
    NULL,                          /* postconfiguration */
    copied_create_main_conf,       /* create main configuration */
    copied_init_main_conf,         /* init main configuration */
    NULL,                          /* create server configuration */
    NULL,                          /* merge server configuration */
    NULL,                          /* create location configuration */
    NULL                           /* merge location configuration */
};


ngx_module_t  copied_peer_module = {
    NGX_MODULE_V1,
    &copied_ctx,
    NULL,
    NGX_HTTP_MODULE,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL,
    NGX_MODULE_V1_PADDING
};


ngx_module_t *ngx_modules[] = { &copied_peer_module, NULL };
char *ngx_module_names[] = { "copied_peer_module", NULL };
char *ngx_module_order[] = { NULL };


static void *
copied_create_main_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_uint_t));
}


static char *
copied_init_main_conf(ngx_conf_t *cf, void *conf)
{
    ngx_uint_t                       i;
    ngx_http_upstream_srv_conf_t   **uscfp;
    ngx_http_upstream_main_conf_t   *umcf;

    umcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_upstream_module);
    uscfp = umcf->upstreams.elts;

    for (i = 0; i < umcf->upstreams.nelts; i++) {
        copied_original_init = uscfp[i]->peer.init;
        uscfp[i]->peer.init = copied_init_peer;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
copied_init_peer(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us)
{
    copied_peer_t          *cp;
    ngx_peer_connection_t  *pc;

    if (copied_original_init(r, us) != NGX_OK) {
        return NGX_ERROR;
    }

    cp = ngx_pcalloc(r->pool, sizeof(copied_peer_t));
    if (cp == NULL) {
        return NGX_ERROR;
    }

    pc = &r->upstream->peer;

    cp->data = pc->data;
    cp->get = pc->get;
    cp->free = pc->free;
    cp->answer = r->args.len
                 && ngx_strnstr(r->args.data, "answer=1", r->args.len) != NULL;

    pc->data = cp;
    pc->notify = NULL;
    pc->get = copied_get_peer;
    pc->free = copied_free_peer;

    return NGX_OK;
}


static ngx_int_t
copied_get_peer(ngx_peer_connection_t *pc, void *data)
{
    ngx_int_t              rc;
    copied_peer_t         *cp = data;
    ngx_peer_connection_t  copy;

    if (cp->answer && cp->tries++) {
        pc->sockaddr = cp->sockaddr;
        pc->socklen = cp->socklen;
        pc->name = cp->name;
        pc->cached = 0;
        pc->connection = NULL;

        return NGX_OK;
    }

    copy = *pc;
    rc = cp->get(&copy, cp->data);
    *pc = copy;

    cp->sockaddr = pc->sockaddr;
    cp->socklen = pc->socklen;
    cp->name = pc->name;

    return rc;
}


static void
copied_free_peer(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    copied_peer_t         *cp = data;
    ngx_peer_connection_t  copy;

    if (cp->tries > 1) {

        if (pc->tries) {
            pc->tries--;
        }

        return;
    }

    copy = *pc;
    cp->free(&copy, cp->data, state);
    *pc = copy;
}
