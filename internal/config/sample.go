package config

// Sample is the commented file that `sallyport configure` prints.
const Sample = `# Sallyport. Unknown keys are errors. Start with: sallyport start -c FILE
version: v1
# cluster_name is part of every certificate and fixed at the first start. Default: the host's name.
cluster_name: %s
# node_name is how this host's SSH node is listed. Default: the host's name.
node_name: %s
# data_dir holds the database, the key file that seals the signing keys, and host keys.
data_dir: %s

# join: where auth is not enabled here.
# join: {proxy: "proxy.example.com:3080", token: "@/etc/sallyport/token", ca_pin: ["sha256:..."]}

auth:
  enabled: true
  # listen is for proxies in processes of their own; everybody else comes through the public port.
  listen: 127.0.0.1:3025
  storage: {type: sqlite}
  # authentication seeds a new cluster; from then on "tctl edit cap" rules.
  authentication:
    second_factors: [otp]            # [] = password alone
    device_trust:
      mode: optional                 # off, optional, required, required-for-humans
      auto_enroll: false             # registered devices enroll at their owner's login
      allow_software_keys: false
      ekcert_allowed_cas: []         # PEM, or paths of files and of directories of them
      ekcert_policy: enforce         # or monitor: note what would be refused
      owners: one                    # or many: several users may enroll one device

proxy:
  enabled: true
  listen: ":3080"
  public_addr: []                    # ["proxy.example.com:3080"]
  https_keypairs: []                 # [{key_file: ..., cert_file: ...}]
  proxy_protocol_from: []            # addresses of load balancers that send a PROXY line

ssh:
  enabled: true
  labels: {}

# databases are served by a database agent in this process; [] serves what "tctl create" makes.
# databases:
#   - name: orders
#     protocol: postgres               # postgres, mysql (MariaDB too), redis, mongodb
#     uri: "db.internal:5432"
#     labels: {env: prod}
#     tls: {ca_file: /etc/ssl/db-ca.pem, server_name: db.internal}   # default: "tctl auth sign --db=orders"
#     password_file: /etc/sallyport/orders.passwords                 # USER:PASSWORD lines; default: client certificates
#     admin_user: sallyport                                          # makes users, where roles set create_db_user_mode

# kubernetes are clusters that a Kubernetes agent in this process serves; [] serves what "tctl create" makes.
# kubernetes:
#   - name: dev
#     kubeconfig: /etc/sallyport/dev.kubeconfig   # none: the cluster that this pod runs in
#     context: dev                                # default: the file's current one
#     labels: {env: dev}
`
