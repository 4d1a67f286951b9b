// SPDX-FileCopyrightText: 2026 keytok-haystack contributors
//
// SPDX-License-Identifier: Apache-2.0

import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.elasticsearch.cluster.service.ClusterService;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.http.HttpServerTransport;
import org.elasticsearch.index.mapper.MapperExtrasPlugin;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.reindex.ReindexPlugin;
import org.elasticsearch.transport.Netty4Plugin;

/**
 * One Elasticsearch 7.17 node in this JVM, with the modules that are published: rank_features, but no dense vectors.
 *
 * <p>Arguments are settings, {@code name=value}. Prints {@code READY URL}, and ends when its standard input does.
 */
public class Elasticsearch7Node extends Node {
    private Elasticsearch7Node(Settings settings, Path config) {
        super(
            InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), config, () -> "node"),
            List.of(Netty4Plugin.class, MapperExtrasPlugin.class, ReindexPlugin.class),
            false);
    }

    @Override
    protected void configureNodeAndClusterIdStateListener(ClusterService clusterService) {
        // names the node in the log files of a distribution, which this is not
    }

    public static void main(String[] arguments) throws Exception {
        Settings.Builder settings = Settings.builder();
        for (String argument : arguments) {
            String[] pair = argument.split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        Elasticsearch7Node node = new Elasticsearch7Node(settings.build(), Path.of(settings.get("path.home"), "config"));
        node.start();
        var address = node.injector().getInstance(HttpServerTransport.class).boundAddress().publishAddress();
        System.out.println("READY http://" + address.getAddress() + ":" + address.getPort());
        while (System.in.read() >= 0) {
            // the launcher writes nothing: this returns when the launcher ends, however it ends
        }
        node.close();
        System.exit(0);
    }
}
