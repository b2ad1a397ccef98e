
/*
 * For run_time.t: makes an upstream in a running worker, as the modules do that
 * have an interface for it: the block is parsed with a pool of its own, then
 * init_upstream is called; later the pool is destroyed.  As Tengine's dyups, it
 * puts data of its own into the peer, and forgets peer.notify.  With "other=1"
 * among the arguments of a request to it, its upstream looks as if nginx had laid
 * it out otherwise.
 *
 * In a location, "runtime_upstream FILE;" answers "?add" by making the upstream
 * "runtime" of the directives in FILE, and "?delete" by deleting it.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


static char *runtime_upstream(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static ngx_int_t runtime_handler(ngx_http_request_t *r);
static ngx_int_t runtime_add(ngx_http_request_t *r);
static ngx_int_t runtime_delete(ngx_http_request_t *r);
static ngx_int_t runtime_create_confs(ngx_conf_t *cf, ngx_http_conf_ctx_t *ctx);


static ngx_int_t runtime_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t runtime_get_peer(ngx_peer_connection_t *pc, void *data);
static void runtime_free_peer(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);
#if (NGX_HTTP_SSL)
static ngx_int_t runtime_set_session(ngx_peer_connection_t *pc, void *data);
static void runtime_save_session(ngx_peer_connection_t *pc, void *data);
#endif


typedef struct {
    void                   *data;
    ngx_event_get_peer_pt   get;
    ngx_event_free_peer_pt  free;
#if (NGX_HTTP_SSL)
    ngx_event_set_peer_session_pt   set_session;
    ngx_event_save_peer_session_pt  save_session;
#endif
} runtime_peer_t;


static ngx_http_upstream_init_peer_pt   runtime_original_init;


static ngx_str_t   runtime_file;
static ngx_pool_t *runtime_pool;


static ngx_command_t  runtime_commands[] = {

    { ngx_string("runtime_upstream"),
      NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      runtime_upstream,
      0,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  runtime_ctx;


ngx_module_t  runtime_upstream_module = {
    NGX_MODULE_V1,
    &runtime_ctx,
    runtime_commands,
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


ngx_module_t *ngx_modules[] = { &runtime_upstream_module, NULL };
char *ngx_module_names[] = { "runtime_upstream_module", NULL };
char *ngx_module_order[] = { NULL };


static char *
runtime_upstream(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t                 *value;
    ngx_http_core_loc_conf_t  *clcf;

    value = cf->args->elts;
    runtime_file = value[1];

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = runtime_handler;

    return NGX_CONF_OK;
}


static ngx_int_t
runtime_handler(ngx_http_request_t *r)
{
    ngx_int_t  rc;

    rc = ngx_strncmp(r->args.data, "add", 3) == 0 ? runtime_add(r)
                                                  : runtime_delete(r);

    return rc == NGX_OK ? NGX_HTTP_NO_CONTENT : NGX_HTTP_INTERNAL_SERVER_ERROR;
}


static ngx_int_t
runtime_add(ngx_http_request_t *r)
{
    ngx_conf_t                       cf;
    ngx_cycle_t                      cycle;
    ngx_conf_file_t                  file;
    ngx_http_conf_ctx_t              ctx;
    ngx_http_upstream_init_pt        init;
    ngx_http_upstream_srv_conf_t    *uscf, **uscfp;
    ngx_http_upstream_main_conf_t   *umcf;

    runtime_pool = ngx_create_pool(NGX_DEFAULT_POOL_SIZE, ngx_cycle->log);
    if (runtime_pool == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(&cf, sizeof(ngx_conf_t));
    ngx_memzero(&ctx, sizeof(ngx_http_conf_ctx_t));
    ngx_memzero(&file, sizeof(ngx_conf_file_t));

    file.file.name = runtime_file;

    /* what nginx may dump of the file goes with the pool */

    cycle = *(ngx_cycle_t *) ngx_cycle;
    ngx_rbtree_init(&cycle.config_dump_rbtree, &cycle.config_dump_sentinel,
                    ngx_str_rbtree_insert_value);

    cf.ctx = &ctx;
    cf.conf_file = &file;
    cf.cycle = &cycle;
    cf.pool = runtime_pool;
    cf.temp_pool = runtime_pool;
    cf.log = ngx_cycle->log;
    cf.module_type = NGX_HTTP_MODULE;
    cf.cmd_type = NGX_HTTP_UPS_CONF;
    cf.args = ngx_array_create(runtime_pool, 10, sizeof(ngx_str_t));

    ctx.main_conf = r->main_conf;

    uscf = ngx_pcalloc(runtime_pool, sizeof(ngx_http_upstream_srv_conf_t));
    if (uscf == NULL
        || cf.args == NULL
        || ngx_array_init(&cycle.config_dump, runtime_pool, 1,
                          sizeof(ngx_conf_dump_t))
           != NGX_OK)
    {
        goto failed;
    }

    ngx_str_set(&uscf->host, "runtime");
    uscf->file_name = runtime_file.data;
    uscf->flags = NGX_HTTP_UPSTREAM_CREATE|NGX_HTTP_UPSTREAM_WEIGHT
                  |NGX_HTTP_UPSTREAM_MAX_FAILS|NGX_HTTP_UPSTREAM_BACKUP;
    uscf->servers = ngx_array_create(runtime_pool, 4,
                                     sizeof(ngx_http_upstream_server_t));

    if (uscf->servers == NULL || runtime_create_confs(&cf, &ctx) != NGX_OK) {
        goto failed;
    }

    uscf->srv_conf = ctx.srv_conf;
    ctx.srv_conf[ngx_http_upstream_module.ctx_index] = uscf;

    if (ngx_conf_parse(&cf, &runtime_file) != NGX_CONF_OK) {
        goto failed;
    }

    init = uscf->peer.init_upstream ? uscf->peer.init_upstream
                                    : ngx_http_upstream_init_round_robin;

    if (init(&cf, uscf) != NGX_OK) {
        goto failed;
    }

    runtime_original_init = uscf->peer.init;
    uscf->peer.init = runtime_init_peer;

    umcf = ngx_http_get_module_main_conf(r, ngx_http_upstream_module);

    uscfp = ngx_array_push(&umcf->upstreams);
    if (uscfp == NULL) {
        goto failed;
    }

    *uscfp = uscf;

#if (NGX_HTTP_UPSTREAM_RBTREE)
    /* where Tengine looks for it */
    uscf->node.key = ngx_crc32_short(uscf->host.data, uscf->host.len);
    ngx_rbtree_insert(&umcf->rbtree, &uscf->node);
#endif

    return NGX_OK;

failed:

    ngx_destroy_pool(runtime_pool);

    return NGX_ERROR;
}


static ngx_int_t
runtime_create_confs(ngx_conf_t *cf, ngx_http_conf_ctx_t *ctx)
{
    ngx_uint_t          i, n;
    ngx_module_t       *module;
    ngx_http_module_t  *hm;

    ctx->srv_conf = ngx_pcalloc(cf->pool, sizeof(void *) * ngx_http_max_module);
    ctx->loc_conf = ngx_pcalloc(cf->pool, sizeof(void *) * ngx_http_max_module);

    if (ctx->srv_conf == NULL || ctx->loc_conf == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; ngx_cycle->modules[i]; i++) {
        module = ngx_cycle->modules[i];

        if (module->type != NGX_HTTP_MODULE) {
            continue;
        }

        hm = module->ctx;
        n = module->ctx_index;

        if (hm->create_srv_conf) {
            ctx->srv_conf[n] = hm->create_srv_conf(cf);
            if (ctx->srv_conf[n] == NULL) {
                return NGX_ERROR;
            }
        }

        if (hm->create_loc_conf) {
            ctx->loc_conf[n] = hm->create_loc_conf(cf);
            if (ctx->loc_conf[n] == NULL) {
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


static ngx_int_t
runtime_delete(ngx_http_request_t *r)
{
#if (NGX_HTTP_UPSTREAM_RBTREE)
    ngx_http_upstream_srv_conf_t   **uscfp;
#endif
    ngx_http_upstream_main_conf_t   *umcf;

    umcf = ngx_http_get_module_main_conf(r, ngx_http_upstream_module);

    umcf->upstreams.nelts--;

#if (NGX_HTTP_UPSTREAM_RBTREE)
    uscfp = umcf->upstreams.elts;
    ngx_rbtree_delete(&umcf->rbtree, &uscfp[umcf->upstreams.nelts]->node);
#endif

    ngx_destroy_pool(runtime_pool);

    return NGX_OK;
}


static ngx_int_t
runtime_init_peer(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us)
{
    ngx_int_t             rc;
    ngx_str_t             value;
    runtime_peer_t       *rp;
    ngx_http_upstream_t  *u;
    ngx_http_cleanup_pt  *cleanup;

    cleanup = r->upstream->cleanup;

    if (ngx_http_arg(r, (u_char *) "other", 5, &value) == NGX_OK) {
        r->upstream->cleanup++;
    }

    rc = runtime_original_init(r, us);

    r->upstream->cleanup = cleanup;

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    rp = ngx_palloc(r->pool, sizeof(runtime_peer_t));
    if (rp == NULL) {
        return NGX_ERROR;
    }

    u = r->upstream;

    rp->data = u->peer.data;
    rp->get = u->peer.get;
    rp->free = u->peer.free;

    u->peer.data = rp;
    u->peer.get = runtime_get_peer;
    u->peer.free = runtime_free_peer;

#if (NGX_HTTP_SSL)
    rp->set_session = u->peer.set_session;
    rp->save_session = u->peer.save_session;
    u->peer.set_session = runtime_set_session;
    u->peer.save_session = runtime_save_session;
#endif

    return NGX_OK;
}


static ngx_int_t
runtime_get_peer(ngx_peer_connection_t *pc, void *data)
{
    runtime_peer_t  *rp = data;

    return rp->get(pc, rp->data);
}


static void
runtime_free_peer(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    runtime_peer_t  *rp = data;

    rp->free(pc, rp->data, state);
}


#if (NGX_HTTP_SSL)

static ngx_int_t
runtime_set_session(ngx_peer_connection_t *pc, void *data)
{
    runtime_peer_t  *rp = data;

    return rp->set_session(pc, rp->data);
}


static void
runtime_save_session(ngx_peer_connection_t *pc, void *data)
{
    runtime_peer_t  *rp = data;

    rp->save_session(pc, rp->data);
}

#endif
