
/*
 * For own_connection.t: in an upstream, "own_connection;" has the balancer keep
 * one connection itself after a request with "own=1" among its arguments, and
 * use it for the next request that it sends to the same server, as the modules
 * do in which scripts choose the server.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


typedef struct {
    void                     *data;
    ngx_event_get_peer_pt     get;
    ngx_event_free_peer_pt    free;
    ngx_uint_t                own;
} own_peer_t;


static char *own_connection(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static ngx_int_t own_init_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t own_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t own_get_peer(ngx_peer_connection_t *pc, void *data);
static void own_free_peer(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);
static void own_set_log(ngx_connection_t *c, ngx_log_t *log);
static void own_dummy_handler(ngx_event_t *ev);


static ngx_http_upstream_init_pt        own_original_init_upstream;
static ngx_http_upstream_init_peer_pt   own_original_init_peer;

static ngx_connection_t                *own_kept;
static struct sockaddr                 *own_sockaddr;


static ngx_command_t  own_commands[] = {

    { ngx_string("own_connection"),
      NGX_HTTP_UPS_CONF|NGX_CONF_NOARGS,
      own_connection,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  own_ctx;


ngx_module_t  own_connection_module = {
    NGX_MODULE_V1,
    &own_ctx,
    own_commands,
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


ngx_module_t *ngx_modules[] = { &own_connection_module, NULL };
char *ngx_module_names[] = { "own_connection_module", NULL };
char *ngx_module_order[] = { NULL };


static char *
own_connection(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_upstream_srv_conf_t  *uscf;

    uscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_upstream_module);

    own_original_init_upstream = uscf->peer.init_upstream;
    uscf->peer.init_upstream = own_init_upstream;

    return NGX_CONF_OK;
}


static ngx_int_t
own_init_upstream(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *us)
{
    if (own_original_init_upstream(cf, us) != NGX_OK) {
        return NGX_ERROR;
    }

    own_original_init_peer = us->peer.init;
    us->peer.init = own_init_peer;

    return NGX_OK;
}


static ngx_int_t
own_init_peer(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us)
{
    own_peer_t             *op;
    ngx_peer_connection_t  *pc;

    if (own_original_init_peer(r, us) != NGX_OK) {
        return NGX_ERROR;
    }

    op = ngx_palloc(r->pool, sizeof(own_peer_t));
    if (op == NULL) {
        return NGX_ERROR;
    }

    pc = &r->upstream->peer;

    op->data = pc->data;
    op->get = pc->get;
    op->free = pc->free;
    op->own = r->args.len
              && ngx_strnstr(r->args.data, "own=1", r->args.len) != NULL;

    pc->data = op;
    pc->notify = NULL;
    pc->get = own_get_peer;
    pc->free = own_free_peer;

    return NGX_OK;
}


static ngx_int_t
own_get_peer(ngx_peer_connection_t *pc, void *data)
{
    ngx_int_t          rc;
    own_peer_t        *op = data;
    ngx_connection_t  *c;

    rc = op->get(pc, op->data);

    if (rc != NGX_OK || own_kept == NULL || own_sockaddr != pc->sockaddr) {
        return rc;
    }

    c = own_kept;
    own_kept = NULL;

    c->idle = 0;
    c->sent = 0;
    c->data = NULL;
    own_set_log(c, pc->log);

    pc->connection = c;
    pc->cached = 1;

    return NGX_DONE;
}


static void
own_free_peer(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    own_peer_t        *op = data;
    ngx_connection_t  *c;

    c = pc->connection;

    if (c && op->own && own_kept == NULL && !(state & NGX_PEER_FAILED)) {
        c->idle = 1;
        c->read->handler = own_dummy_handler;
        c->write->handler = own_dummy_handler;
        own_set_log(c, ngx_cycle->log);

        own_kept = c;
        own_sockaddr = pc->sockaddr;
        pc->connection = NULL;
    }

    op->free(pc, op->data, state);
}


static void
own_set_log(ngx_connection_t *c, ngx_log_t *log)
{
    c->log = log;
    c->read->log = log;
    c->write->log = log;
    c->pool->log = log;
}


static void
own_dummy_handler(ngx_event_t *ev)
{
    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, ev->log, 0, "own connection");
}
