
/*
 * For scripted_peer.t and switched_tls.t: in an upstream, "scripted_peer;" has
 * the balancer change, by the arguments of the request, with what nginx makes a
 * connection, as the modules do in which scripts choose the server:
 *
 *     name=NAME   the name in TLS
 *     bind=yes    127.0.0.2 as the local address, for the first attempt only
 *     conf=copy   the configuration of the upstream is another structure
 *     tls=on      TLS is used, or with "off" not, whatever the location says;
 *                 with "first", for the first attempt only
 *     timeouts=1  a copy of the configuration, with other timeouts, takes its
 *                 place when the server is chosen; with "sni", without the name
 *                 in TLS, and with "next", that for all attempts but the first
 *
 * $alternating is a.example and b.example in turn, each time that it is looked at
 * in a request.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


typedef struct {
    void                   *data;
    ngx_event_get_peer_pt   get;
    ngx_event_free_peer_pt  free;
#if (NGX_HTTP_SSL)
    ngx_event_set_peer_session_pt   set_session;
    ngx_event_save_peer_session_pt  save_session;
#endif
    ngx_http_request_t     *request;
    ngx_uint_t              attempts;
} scripted_peer_t;


static char *scripted_peer(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static ngx_int_t scripted_init_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t scripted_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t scripted_copy_conf(ngx_http_request_t *r);
static ngx_int_t scripted_get_peer(ngx_peer_connection_t *pc, void *data);
static void scripted_free_peer(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);
#if (NGX_HTTP_SSL)
static ngx_int_t scripted_set_session(ngx_peer_connection_t *pc, void *data);
static void scripted_save_session(ngx_peer_connection_t *pc, void *data);
#endif


static ngx_int_t scripted_add_variable(ngx_conf_t *cf);
static ngx_int_t scripted_alternating(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);


static ngx_http_upstream_init_peer_pt   scripted_original_init;


static ngx_command_t  scripted_commands[] = {

    { ngx_string("scripted_peer"),
      NGX_HTTP_UPS_CONF|NGX_CONF_NOARGS,
      scripted_peer,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  scripted_ctx = {
    scripted_add_variable, NULL, NULL, NULL, NULL, NULL, NULL, NULL
};


ngx_module_t  scripted_peer_module = {
    NGX_MODULE_V1,
    &scripted_ctx,
    scripted_commands,
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


ngx_module_t *ngx_modules[] = { &scripted_peer_module, NULL };
char *ngx_module_names[] = { "scripted_peer_module", NULL };
char *ngx_module_order[] = { NULL };


static ngx_int_t
scripted_add_variable(ngx_conf_t *cf)
{
    ngx_str_t             name = ngx_string("alternating");
    ngx_http_variable_t  *var;

    var = ngx_http_add_variable(cf, &name, NGX_HTTP_VAR_NOCACHEABLE);
    if (var == NULL) {
        return NGX_ERROR;
    }

    var->get_handler = scripted_alternating;

    return NGX_OK;
}


static ngx_int_t
scripted_alternating(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    static ngx_uint_t          times;
    static ngx_atomic_uint_t   connection;

    if (connection != r->connection->number) {
        connection = r->connection->number;
        times = 0;
    }

    v->len = sizeof("a.example") - 1;
    v->data = (u_char *) (times++ % 2 ? "b.example" : "a.example");
    v->valid = 1;
    v->no_cacheable = 1;
    v->not_found = 0;

    return NGX_OK;
}


static char *
scripted_peer(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_upstream_srv_conf_t  *uscf;

    uscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_upstream_module);
    uscf->peer.init_upstream = scripted_init_upstream;

    return NGX_CONF_OK;
}


static ngx_int_t
scripted_init_upstream(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *us)
{
    if (ngx_http_upstream_init_round_robin(cf, us) != NGX_OK) {
        return NGX_ERROR;
    }

    scripted_original_init = us->peer.init;
    us->peer.init = scripted_init_peer;

    return NGX_OK;
}


static ngx_int_t
scripted_init_peer(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us)
{
    ngx_str_t             value;
    scripted_peer_t      *sp;
    ngx_http_upstream_t  *u;

    if (scripted_original_init(r, us) != NGX_OK) {
        return NGX_ERROR;
    }

    sp = ngx_palloc(r->pool, sizeof(scripted_peer_t));
    if (sp == NULL) {
        return NGX_ERROR;
    }

    u = r->upstream;

    sp->data = u->peer.data;
    sp->get = u->peer.get;
    sp->free = u->peer.free;
    sp->request = r;
    sp->attempts = 0;

    u->peer.data = sp;
    u->peer.notify = NULL;
#if (NGX_HTTP_SSL)
    sp->set_session = u->peer.set_session;
    sp->save_session = u->peer.save_session;
    u->peer.set_session = scripted_set_session;
    u->peer.save_session = scripted_save_session;
#endif
    u->peer.get = scripted_get_peer;
    u->peer.free = scripted_free_peer;

    if (ngx_http_arg(r, (u_char *) "conf", 4, &value) == NGX_OK) {
        return scripted_copy_conf(r);
    }

    return NGX_OK;
}


static ngx_int_t
scripted_copy_conf(ngx_http_request_t *r)
{
    ngx_http_upstream_conf_t  *conf;

    conf = ngx_palloc(r->pool, sizeof(ngx_http_upstream_conf_t));
    if (conf == NULL) {
        return NGX_ERROR;
    }

    *conf = *r->upstream->conf;
    r->upstream->conf = conf;

    return NGX_OK;
}


static ngx_int_t
scripted_get_peer(ngx_peer_connection_t *pc, void *data)
{
    ngx_str_t         value;
    ngx_addr_t       *addr;
    ngx_uint_t        is_first;
    scripted_peer_t  *sp = data;

    is_first = (sp->attempts++ == 0);

    if (ngx_http_arg(sp->request, (u_char *) "name", 4, &value) == NGX_OK) {
        sp->request->upstream->ssl_name = value;
    }

    if (ngx_http_arg(sp->request, (u_char *) "tls", 3, &value) == NGX_OK) {
        sp->request->upstream->ssl = (value.len == 2
                                      || (value.len == 5 && is_first));
    }

    if (ngx_http_arg(sp->request, (u_char *) "timeouts", 8, &value) == NGX_OK) {
        if (scripted_copy_conf(sp->request) != NGX_OK) {
            return NGX_ERROR;
        }

        sp->request->upstream->conf->read_timeout = 5000;
#if (NGX_HTTP_SSL)
        if (value.len == 3 || (value.len == 4 && !is_first)) {
            sp->request->upstream->conf->ssl_server_name = 0;
        }
#endif
    }

    pc->local = NULL;

    if (ngx_http_arg(sp->request, (u_char *) "bind", 4, &value) == NGX_OK
        && is_first)
    {
        addr = ngx_pcalloc(sp->request->pool, sizeof(ngx_addr_t));
        if (addr == NULL) {
            return NGX_ERROR;
        }

        if (ngx_parse_addr(sp->request->pool, addr, (u_char *) "127.0.0.2", 9)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        pc->local = addr;
    }

    return sp->get(pc, sp->data);
}


static void
scripted_free_peer(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    scripted_peer_t  *sp = data;

    sp->free(pc, sp->data, state);
}


#if (NGX_HTTP_SSL)

static ngx_int_t
scripted_set_session(ngx_peer_connection_t *pc, void *data)
{
    scripted_peer_t  *sp = data;

    return sp->set_session(pc, sp->data);
}


static void
scripted_save_session(ngx_peer_connection_t *pc, void *data)
{
    scripted_peer_t  *sp = data;

    sp->save_session(pc, sp->data);
}

#endif
